// measure_network between hosts, one of which the others cannot reach.
#include <gtest/gtest.h>

#include <chrono>

#include "conformance/network_reports.hpp"
#include "conformance/outcomes.hpp"
#include "fabric/host_ranks.hpp"

namespace moelink::test {
namespace {

using std::chrono::seconds;

constexpr int kNumRanks = 3;
constexpr Rank kSilent(2);
constexpr seconds kPatience{5};
constexpr seconds kGrace{15};

class NetworkCheckHosts : public ::testing::Test {
 protected:
  void SetUp() override { skip_without_fabric(); }
};

TEST_F(NetworkCheckHosts, MeasuresAllAndNumbersTheHosts) {
  const HostNetwork network(kNumRanks);
  const auto errors = run_on_hosts(network, kNumRanks, [](Bootstrap& control) {
    const NetworkReport report = measure_network(connect_job(control));
    require_complete(report, kNumRanks);
    for (int rank = 0; rank < kNumRanks; ++rank) {
      require(report.ranks[static_cast<std::size_t>(rank)].host == rank, "wrong host");
    }
    require_words(report.ranks[1].transport, {"tcp", "eth0"});
  });
  EXPECT_EQ(errors, std::vector<std::string>(kNumRanks));
}

// Everything that reaches this host's card is dropped: its card and its address are there.
void turn_deaf() {
  run_command(
      "tc qdisc add dev eth0 clsact && tc filter add dev eth0 ingress bpf direct-action bytecode "
      "'1,6 0 0 2'");
}

void require_unreached(const NetworkReport& report) {
  for (const NetworkLink& link : report.links) {
    const bool is_lost = link.source == kSilent || link.target == kSilent;
    if (!is_lost) {
      require_measured(link);
      continue;
    }
    require_words(link.problem, {"network check", "rank 2"});
    require(link.gb_per_s == 0, "measured in spite of: {}", link.problem);
  }
}

TEST_F(NetworkCheckHosts, AHostThatCannotBeReachedIsNamedWithinOneDeadlineAndTheOthersGoOn) {
  const HostNetwork network(kNumRanks);
  const auto errors = run_on_hosts(network, kNumRanks, [](Bootstrap& control) {
    if (control.rank() == kSilent) turn_deaf();
    control.barrier("the host is deaf", soon());
    const auto begin = std::chrono::steady_clock::now();
    const NetworkReport report = measure_network(group_over(control), {.timeout = kPatience});
    require(std::chrono::steady_clock::now() - begin < kPatience + kGrace, "told too late");
    require(report.links.size() == kNumRanks * (kNumRanks - 1), "{} links", report.links.size());
    require_unreached(report);
    require_same_everywhere(control, report);
  });
  EXPECT_EQ(errors, std::vector<std::string>(kNumRanks));
}

}  // namespace
}  // namespace moelink::test
