// Puts between hosts over libfabric, between ranks that met by the TCP rendezvous.
#include <gtest/gtest.h>

#include "conformance/outcomes.hpp"
#include "fabric/host_ranks.hpp"

namespace moelink::test {
namespace {

constexpr std::size_t kLarge = std::size_t{1} << 20;
constexpr PutTraffic kLargePuts{
    .block_bytes = kLarge, .put_bytes = kLarge, .num_rounds = 12, .counter = 0};
constexpr PutTraffic kSmallPuts{
    .block_bytes = 100'000, .put_bytes = 72, .num_rounds = 4, .counter = 1};

class HostPuts : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override { skip_without_fabric(); }

  static void run(const TransportConfig& config) { run(config, HostNetwork(GetParam())); }

  static void run(const TransportConfig& config, const HostNetwork& network) {
    const auto errors = run_on_hosts(network, GetParam(), [&](Bootstrap& control) {
      const Group group = connect_job(control);
      const auto num_blocks = static_cast<std::size_t>(group.num_ranks());
      TransportRank rank(group.bootstrap(), tcp_kind(), num_blocks * kLarge, config);
      require_words(rank.transport().describe(), {"tcp", "eth0"});
      exchange_blocks(rank, kLargePuts);
      exchange_blocks(rank, kSmallPuts);
    });
    EXPECT_EQ(errors, std::vector<std::string>(errors.size()));
  }
};

TEST_P(HostPuts, LargeAndSmallOnesArriveWholeInAllDirections) { run({}); }

TEST_P(HostPuts, StripedOnesArriveWholeInAllDirections) {
  run({.endpoints_per_nic = 4, .min_stripe_bytes = 4096});
}

// As containers have it; libfabric lists the card of this network first, at every host.
TEST_P(HostPuts, NetworkThatEachHostHasForItselfIsNotUsed) {
  const HostNetwork network(GetParam());
  for (int host = 0; host < GetParam(); ++host) {
    network.run(host,
                "ip link add docker0 type veth peer name container0 && "
                "ip address add 172.17.0.1/16 dev docker0 && "
                "ip link set container0 up && ip link set docker0 up");
  }
  run({}, network);
}

INSTANTIATE_TEST_SUITE_P(Hosts, HostPuts, ::testing::Values(2, 4),
                         [](const auto& parameter) { return std::to_string(parameter.param); });

}  // namespace
}  // namespace moelink::test
