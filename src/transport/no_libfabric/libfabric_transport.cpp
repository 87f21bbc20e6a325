// Stands in for libfabric in builds without its headers.
#include "base/check.hpp"
#include "transport/fabric.hpp"

namespace moelink {

namespace {

constexpr const char* kProblem =
    "this build of Moelink has no libfabric: install its headers (libfabric-dev) and build again";

}  // namespace

std::unique_ptr<Transport> open_libfabric_transport(const TransportGroup& group,
                                                    const TransportConfig& config,
                                                    const Deadline& deadline) {
  check_config(group, config);
  group.all_gather(std::string(), "opening the libfabric transport", deadline);
  fail(ErrorCode::kUnsupported, "open transport (rank {}): {}", group.rank.value(), kProblem);
}

FabricReport report_fabric() { return FabricReport{.problem = kProblem}; }

}  // namespace moelink
