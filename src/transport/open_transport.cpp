// The registry: a line for each transport.
#include "transport/open_transport.hpp"

#include <fmt/ranges.h>

#include <mutex>
#include <utility>

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

std::mutex decorator_mutex;

TransportDecorator& decorator() {
  static TransportDecorator current;
  return current;
}

std::unique_ptr<Transport> decorate(std::unique_ptr<Transport> transport) {
  const std::scoped_lock lock(decorator_mutex);
  return decorator() ? decorator()(std::move(transport)) : std::move(transport);
}

}  // namespace

void set_transport_decorator(TransportDecorator replacement) {
  const std::scoped_lock lock(decorator_mutex);
  decorator() = std::move(replacement);
}

std::vector<std::string> transport_kinds() {
  std::vector<std::string> names;
  for (const TransportKind& kind : kKinds) names.emplace_back(kind.name);
  return names;
}

std::unique_ptr<Transport> open_transport(const std::string& kind, const TransportGroup& group,
                                          const TransportConfig& config, const Deadline& deadline) {
  for (const TransportKind& known : kKinds) {
    if (kind == known.name) return decorate(known.open(group, config, deadline));
  }
  fail(ErrorCode::kInvalidArgument, "open transport (rank {}): kind is '{}', expected {}",
       group.rank.value(), kind, fmt::join(transport_kinds(), " or "));
}

}  // namespace moelink
