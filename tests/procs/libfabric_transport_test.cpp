// Transports over libfabric between processes of this machine.
#include <gtest/gtest.h>

#include "conformance/forked_bootstrap.hpp"
#include "conformance/transport_conformance.hpp"
#include "transport/fabric.hpp"

namespace moelink::test {
namespace {

void die(Transport&) { die_by_sigkill(); }

// Asked in a process of its own: libfabric and forks do not mix.
std::string missing_libfabric() {
  return run_process_ranks(1, [](Bootstrap&) {
    const FabricReport report = report_fabric();
    if (!report.problem.empty()) throw std::runtime_error(report.problem);
  })[0];
}

INSTANTIATE_TEST_SUITE_P(
    Processes, TransportConformance,
    ::testing::Values(TransportKind{"LibfabricTcp", run_process_ranks, open_libfabric_transport,
                                    die, missing_libfabric, "tcp"},
                      TransportKind{"LibfabricShm", run_process_ranks, open_libfabric_transport,
                                    die, missing_libfabric, "shm"}),
    name_of_transport);

}  // namespace
}  // namespace moelink::test
