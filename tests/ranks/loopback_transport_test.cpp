// The transport between threads.
#include <gtest/gtest.h>

#include "conformance/thread_ranks.hpp"
#include "conformance/transport_conformance.hpp"
#include "transport/loopback/loopback_transport.hpp"

namespace moelink::test {
namespace {

void close_transport(Transport& transport) { transport.close(); }

INSTANTIATE_TEST_SUITE_P(Threads, TransportConformance,
                         ::testing::Values(TransportKind{"Loopback", run_thread_ranks,
                                                         open_loopback_transport, close_transport}),
                         name_of_transport);

}  // namespace
}  // namespace moelink::test
