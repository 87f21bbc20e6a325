// Proxies of several processes over libfabric.
#include <gtest/gtest.h>

#include "conformance/forked_bootstrap.hpp"
#include "conformance/outcomes.hpp"
#include "conformance/transport_rank.hpp"
#include "procs/shm_leftovers.hpp"
#include "proxy/proxy.hpp"
#include "transport/fabric.hpp"

namespace moelink::test {
namespace {

constexpr std::size_t kHalfBytes = 4096;
constexpr std::size_t kPutBytes = 700;

class ProxyProcesses : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string missing = run_process_ranks(1, [](Bootstrap&) {
      const FabricReport report = report_fabric();
      if (!report.problem.empty()) throw std::runtime_error(report.problem);
    })[0];
    if (!missing.empty()) GTEST_SKIP() << missing;
  }

  static TransportRank connect(Bootstrap& bootstrap) {
    TransportKind kind{"Libfabric", run_process_ranks, open_libfabric_transport};
    kind.provider = GetParam();
    return TransportRank(bootstrap, kind, kHalfBytes);
  }

  // Every rank puts to every rank through a lane of its own, and awaits all.
  static void exchange(TransportRank& rank, Proxy& proxy, std::uint64_t num_rounds) {
    const int num_ranks = rank.bootstrap().num_ranks();
    const Rank own = rank.bootstrap().rank();
    for (std::uint64_t round = 0; round < num_rounds; ++round) {
      for (Rank peer(0); peer.value() < num_ranks; peer = peer.next()) {
        Put put = rank.put_of(peer, 0, own.index() * kPutBytes, kPutBytes);
        put.arrival = ArrivalKey{Epoch(1), 0};
        proxy.push(static_cast<std::uint32_t>(peer.value()), command_of(put), soon());
      }
    }
    std::vector<ArrivalWait> waits;
    for (Rank peer(0); peer.value() < num_ranks; peer = peer.next()) {
      waits.push_back({{Epoch(1), 0}, peer, num_rounds, "exchange"});
    }
    proxy.await_arrivals(waits, soon());
  }
};

TEST_P(ProxyProcesses, ExchangeThroughLanes) {
  const auto errors = run_process_ranks(3, [](Bootstrap& bootstrap) {
    TransportRank rank = connect(bootstrap);
    fill_pattern(rank.outgoing(), rank.rank());
    Proxy proxy(rank.take_transport(), {.rings = {.num_lanes = 3, .num_slots = 16}});
    exchange(rank, proxy, 300);
    for (Rank peer(0); peer.value() < 3; peer = peer.next()) {
      require_pattern(rank.incoming().subspan(peer.index() * kPutBytes, kPutBytes), 0, peer);
      proxy.await_completed(static_cast<std::uint32_t>(peer.value()), 299, soon());
    }
    bootstrap.barrier("end of test", soon());
  });
  EXPECT_EQ(errors, std::vector<std::string>(3));
}

TEST_P(ProxyProcesses, WaitForAKilledPeerEndsAndNamesIt) {
  const auto errors = run_process_ranks(2, [](Bootstrap& bootstrap) {
    TransportRank rank = connect(bootstrap);
    Proxy proxy(rank.take_transport(), {.rings = {.num_lanes = 2, .num_slots = 16},
                                        .timeout = std::chrono::milliseconds(500)});
    exchange(rank, proxy, 1);
    bootstrap.barrier("before dying", soon());
    if (bootstrap.rank() == Rank(1)) die_without_leftovers();
    const ArrivalWait wait{{Epoch(1), 0}, Rank(1), 2, "dispatch"};
    const auto outcome = outcome_of([&] {
      proxy.await_arrivals(std::span(&wait, 1), Deadline::after(std::chrono::milliseconds(300)));
    });
    require(outcome.code.has_value(), "waited for the dead without an error");
    require_words(outcome.text, {"rank 0", "dispatch", "rank 1"});
  });
  EXPECT_EQ(errors[0], "");
}

INSTANTIATE_TEST_SUITE_P(Libfabric, ProxyProcesses, ::testing::Values("tcp", "shm"),
                         [](const auto& parameter) { return std::string(parameter.param); });

}  // namespace
}  // namespace moelink::test
