// The registry: a line for each transport.
#include "transport/open_transport.hpp"

#include <fmt/ranges.h>

#include "base/check.hpp"
#include "transport/fabric.hpp"
#include "transport/loopback/loopback_transport.hpp"

namespace moelink {

namespace {

struct TransportKind {
  const char* name;
  std::unique_ptr<Transport> (*open)(const TransportGroup&, const TransportConfig&,
                                     const Deadline&);
};

constexpr TransportKind kKinds[] = {
    {"loopback", open_loopback_transport},
    {"libfabric", open_libfabric_transport},
};

}  // namespace

std::vector<std::string> transport_kinds() {
  std::vector<std::string> names;
  for (const TransportKind& kind : kKinds) names.emplace_back(kind.name);
  return names;
}

std::unique_ptr<Transport> open_transport(const std::string& kind, const TransportGroup& group,
                                          const TransportConfig& config, const Deadline& deadline) {
  for (const TransportKind& known : kKinds) {
    if (kind == known.name) return known.open(group, config, deadline);
  }
  fail(ErrorCode::kInvalidArgument, "open transport (rank {}): kind is '{}', expected {}",
       group.rank.value(), kind, fmt::join(transport_kinds(), " or "));
}

}  // namespace moelink
