// The transport between threads, as it is and with chaos.
#include <gtest/gtest.h>

#include "conformance/thread_ranks.hpp"
#include "conformance/transport_conformance.hpp"
#include "transport/chaos/chaos_transport.hpp"
#include "transport/loopback/loopback_transport.hpp"

namespace moelink::test {
namespace {

void close_transport(Transport& transport) { transport.close(); }

std::unique_ptr<Transport> open_chaos(const TransportGroup& group, const TransportConfig& config,
                                      const Deadline& deadline) {
  return make_chaos_transport(open_loopback_transport(group, config, deadline),
                              {.seed = 1 + group.rank.index()});
}

INSTANTIATE_TEST_SUITE_P(Threads, TransportConformance,
                         ::testing::Values(TransportKind{"Loopback", run_thread_ranks,
                                                         open_loopback_transport, close_transport},
                                           TransportKind{"ChaosOverLoopback", run_thread_ranks,
                                                         open_chaos, close_transport}),
                         name_of_transport);

}  // namespace
}  // namespace moelink::test
