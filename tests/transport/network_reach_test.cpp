// Networks that lead to other hosts, and those that only look as if they did.
#include "transport/network_reach.hpp"

#include <gtest/gtest.h>

namespace moelink {
namespace {

const RankNetworks kFirst{"first",
                          {{"tcp", "172.17.0.0/16", "172.17.0.1"},
                           {"tcp", "10.1.0.0/24", "10.1.0.1"},
                           {"tcp", "10.2.1.0/24", "10.2.1.1"},
                           {"verbs", "ib", "-"}}};
const RankNetworks kSecond{"second",
                           {{"tcp", "172.17.0.0/16", "172.17.0.1"},
                            {"tcp", "10.1.0.0/24", "10.1.0.2"},
                            {"tcp", "10.2.2.0/24", "10.2.2.1"},
                            {"verbs", "ib", "-"}}};

TEST(NetworkReach, NetworksWithOneAddressAtTwoHostsAreOfEachHost) {
  EXPECT_EQ(reach_of_network({kFirst, kSecond}, "tcp", "172.17.0.0/16"), NetworkReach::kOwnHost);
  EXPECT_EQ(reach_of_network({kFirst, kFirst}, "tcp", "172.17.0.0/16"), NetworkReach::kAllRanks);
}

TEST(NetworkReach, NetworksOfAllRanksReachThem) {
  EXPECT_EQ(reach_of_network({kFirst, kSecond}, "tcp", "10.1.0.0/24"), NetworkReach::kAllRanks);
  EXPECT_EQ(reach_of_network({kFirst, kSecond}, "tcp", "10.2.1.0/24"), NetworkReach::kSomeRanks);
}

TEST(NetworkReach, NetworksOfAnotherProviderDoNotCount) {
  EXPECT_EQ(reach_of_network({kFirst, kSecond}, "verbs", "10.1.0.0/24"), NetworkReach::kSomeRanks);
}

TEST(NetworkReach, UnknownAddressesSayNothing) {
  EXPECT_EQ(reach_of_network({kFirst, kSecond}, "verbs", "ib"), NetworkReach::kAllRanks);
}

TEST(NetworkReach, ListsSurviveTheirEncoding) {
  const auto decoded = decode_networks(encode_networks(kFirst));
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->host, "first");
  ASSERT_EQ(decoded->entries.size(), kFirst.entries.size());
  EXPECT_EQ(decoded->entries[1].network, "10.1.0.0/24");
  EXPECT_EQ(decoded->entries[3].address, "-");
  EXPECT_TRUE(decode_networks("lone")->entries.empty());
  for (const char* const bad : {"", "host tcp", "host tcp net", "host tcp net - tcp"}) {
    EXPECT_FALSE(decode_networks(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace moelink
