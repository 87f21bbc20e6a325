// Transports over libfabric between processes of this machine.
#include <gtest/gtest.h>

#include "conformance/forked_bootstrap.hpp"
#include "conformance/texts.hpp"
#include "conformance/transport_conformance.hpp"
#include "procs/shm_leftovers.hpp"
#include "transport/chaos/chaos_transport.hpp"
#include "transport/fabric.hpp"

namespace moelink::test {
namespace {

void die(Transport&) { die_without_leftovers(); }

// Asked in a process of its own: libfabric and forks do not mix.
std::string missing_libfabric() {
  return run_process_ranks(1, [](Bootstrap&) {
    const FabricReport report = report_fabric();
    if (!report.problem.empty()) throw std::runtime_error(report.problem);
  })[0];
}

std::unique_ptr<Transport> open_chaos(const TransportGroup& group, const TransportConfig& config,
                                      const Deadline& deadline) {
  return make_chaos_transport(open_libfabric_transport(group, config, deadline),
                              {.seed = 1 + group.rank.index()});
}

std::unique_ptr<Transport> open_striped(const TransportGroup& group, const TransportConfig& config,
                                        const Deadline& deadline) {
  TransportConfig striped = config;
  striped.endpoints_per_nic = 2;
  striped.min_stripe_bytes = 512;
  return open_libfabric_transport(group, striped, deadline);
}

INSTANTIATE_TEST_SUITE_P(
    Processes, TransportConformance,
    ::testing::Values(TransportKind{"LibfabricTcp", run_process_ranks, open_libfabric_transport,
                                    die, missing_libfabric, "tcp"},
                      TransportKind{"LibfabricShm", run_process_ranks, open_libfabric_transport,
                                    die, missing_libfabric, "shm"},
                      TransportKind{"StripedLibfabricTcp", run_process_ranks, open_striped, die,
                                    missing_libfabric, "tcp"},
                      TransportKind{"ChaosOverLibfabricTcp", run_process_ranks, open_chaos, die,
                                    missing_libfabric, "tcp"}),
    name_of_transport);

// What one rank alone gets wrong, all learn, and no rank waits for another.
std::vector<std::string> errors_of_opening(const TransportConfig& of_rank_1) {
  return run_process_ranks(2, [&](Bootstrap& bootstrap) {
    TransportConfig config;
    config.provider = "tcp";
    if (bootstrap.rank() == Rank(1)) config = of_rank_1;
    open_libfabric_transport(group_of(bootstrap), config, soon());
  });
}

TEST(LibfabricTransport, OpeningFailsAlikeAtAllRanks) {
  if (const std::string missing = missing_libfabric(); !missing.empty()) GTEST_SKIP() << missing;
  TransportConfig config;
  config.provider = "sockets";
  EXPECT_TRUE(all_mention(errors_of_opening(config), {"invalid argument", "rank 1", "sockets"}));
  config.provider = "tcp";
  config.near_pci = "ffff:ff:ff.7";
  EXPECT_TRUE(
      all_mention(errors_of_opening(config), {"invalid argument", "rank 1", "ffff:ff:ff.7"}));
  config = TransportConfig{.provider = "shm"};
  EXPECT_TRUE(all_mention(errors_of_opening(config), {"unsupported", "'shm'", "'tcp"}));
}

}  // namespace
}  // namespace moelink::test
