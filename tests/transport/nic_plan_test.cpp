// Which cards a rank uses, on machines described by hand.
#include "transport/nic_plan.hpp"

#include <gtest/gtest.h>

namespace moelink {
namespace {

// Two sockets; on each a switch with a GPU and a card, and a card of its own behind the first.
const std::string kGpu0 = "pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:00.0";
const std::string kGpu1 = "pci0000:80/0000:80:01.0/0000:81:00.0/0000:82:00.0";
const NicPlace kNear0{"mlx5_0", "ib", "pci0000:00/0000:00:01.0/0000:01:00.0/0000:03:00.0"};
const NicPlace kFar0{"mlx5_1", "ib", "pci0000:00/0000:00:02.0/0000:08:00.0"};
const NicPlace kNear1{"mlx5_2", "ib", "pci0000:80/0000:80:01.0/0000:81:00.0/0000:83:00.0"};
const std::vector<NicPlace> kCards = {kFar0, kNear1, kNear0};

using Positions = std::vector<std::size_t>;

TEST(DeviceDistance, GrowsFromSwitchToBridgeToOtherSocket) {
  EXPECT_EQ(device_distance(kGpu0, kGpu0), 0);
  const int same_switch = device_distance(kGpu0, kNear0.device_path);
  const int same_socket = device_distance(kGpu0, kFar0.device_path);
  const int other_socket = device_distance(kGpu0, kNear1.device_path);
  EXPECT_EQ(same_switch, 2);
  EXPECT_LT(same_switch, same_socket);
  EXPECT_LT(same_socket, other_socket);
  EXPECT_EQ(device_distance(kGpu0, kNear0.device_path), device_distance(kNear0.device_path, kGpu0));
}

TEST(NicPlan, TakesTheNearestCardsFirst) {
  EXPECT_EQ(plan_nics(kCards, {.near_path = kGpu0, .max_nics = 1}), Positions{2});
  EXPECT_EQ(plan_nics(kCards, {.near_path = kGpu1, .max_nics = 1}), Positions{1});
  EXPECT_EQ(plan_nics(kCards, {.near_path = kGpu0, .max_nics = 8}), (Positions{2, 0, 1}));
}

TEST(NicPlan, SpreadsRanksOverEquallyNearCards) {
  const std::vector<NicPlace> pair = {
      {"a", "ib", "pci0000:00/0000:00:01.0"}, {"b", "ib", "pci0000:00/0000:00:02.0"}, kNear1};
  const std::string device = "pci0000:00/0000:00:03.0";
  EXPECT_EQ(plan_nics(pair, {.near_path = device, .turn = 0}), Positions{0});
  EXPECT_EQ(plan_nics(pair, {.near_path = device, .turn = 1}), Positions{1});
  EXPECT_EQ(plan_nics(pair, {.near_path = device, .turn = 2}), Positions{0});
  EXPECT_EQ(plan_nics(pair, {.near_path = device, .max_nics = 3, .turn = 1}), (Positions{1, 0, 2}));
}

TEST(NicPlan, UsesACardOnceAndLoopbackOnlyAlone) {
  const std::vector<NicPlace> cards = {{"lo", "127.0.0.1/32", ""},
                                       {"eth0", "fe80::/64", ""},
                                       {"eth0", "10.0.0.0/8", ""},
                                       {"eth0", "fd00::/64", ""},
                                       {"eth1", "10.1.0.0/16", ""}};
  EXPECT_EQ(plan_nics(cards, {.max_nics = 8}), (Positions{2, 4}));
  EXPECT_EQ(plan_nics({cards.front()}, {.max_nics = 8}), Positions{0});
  EXPECT_TRUE(plan_nics({}, {}).empty());
}

TEST(NicPlan, PrefersNetworksThatReachMoreRanks) {
  const NicPlace own{"docker0", "172.17.0.0/16", "", "", NetworkReach::kOwnHost};
  const NicPlace some{"eth0", "10.1.0.0/24", "", "", NetworkReach::kSomeRanks};
  const NicPlace all{"eth1", "10.2.0.0/24", "", "", NetworkReach::kAllRanks};
  EXPECT_EQ(plan_nics({own, some, all}, {.max_nics = 8}), Positions{2});
  EXPECT_EQ(plan_nics({own, some}, {.max_nics = 8}), Positions{1});
  EXPECT_EQ(plan_nics({own, {"lo", "127.0.0.1/32", ""}}, {.max_nics = 8}), Positions{0});
}

TEST(NicPlan, DoesNotSpreadOverCardsWithoutAPlace) {
  const std::vector<NicPlace> cards = {{"eth0", "10.0.0.0/8", ""}, {"eth1", "10.1.0.0/16", ""}};
  EXPECT_EQ(plan_nics(cards, {.turn = 1}), Positions{0});
}

}  // namespace
}  // namespace moelink
