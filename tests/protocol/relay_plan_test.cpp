// Who carries whose tokens: senders and carriers must agree, on either path.
#include "protocol/relay_plan.hpp"

#include <gtest/gtest.h>

#include <string>

namespace moelink {
namespace {

class RelayPlans : public ::testing::TestWithParam<RelayPlan> {};

TEST_P(RelayPlans, EveryRankReachesEveryOtherOnceNearOrByOneCarrier) {
  const RelayPlan& plan = GetParam();
  const Topology& topology = plan.topology;
  for (Rank source(0); source.value() < topology.num_ranks; source = source.next()) {
    for (Rank target(0); target.value() < topology.num_ranks; target = target.next()) {
      const int group = plan.group_of(target);
      const bool is_near = topology.node_of(source) == topology.node_of(target);
      EXPECT_EQ(plan.is_far(group, source), !is_near);
      if (is_near) continue;
      const Rank carrier = plan.carrier(group, source);
      EXPECT_EQ(plan.group_of(carrier), group);
      EXPECT_TRUE(plan.carries(carrier, source));
      EXPECT_EQ(plan.carries(target, source), target == carrier);
    }
  }
}

TEST_P(RelayPlans, GroupsAreEqualBlocksOfRanksOfOneNode) {
  const RelayPlan& plan = GetParam();
  EXPECT_EQ(plan.num_groups() * plan.group_size(), plan.topology.num_ranks);
  for (Rank rank(0); rank.value() < plan.topology.num_ranks; rank = rank.next()) {
    const Rank first = plan.first_rank(plan.group_of(rank));
    EXPECT_GE(rank.value(), first.value());
    EXPECT_LT(rank.value(), first.value() + plan.group_size());
    EXPECT_EQ(plan.topology.node_of(first), plan.topology.node_of(rank));
    EXPECT_FALSE(plan.carries(rank, rank));
  }
}

INSTANTIATE_TEST_SUITE_P(Everywhere, RelayPlans,
                         ::testing::Values(RelayPlan{{4, 2}, NetworkPath::kHierarchical},
                                           RelayPlan{{4, 2}, NetworkPath::kDirect},
                                           RelayPlan{{12, 3}, NetworkPath::kHierarchical},
                                           RelayPlan{{12, 3}, NetworkPath::kDirect},
                                           RelayPlan{{3, 3}, NetworkPath::kHierarchical},
                                           RelayPlan{{4, 1}, NetworkPath::kHierarchical}),
                         [](const auto& instance) {
                           return std::to_string(instance.param.topology.num_ranks) + "_ranks_on_" +
                                  std::to_string(instance.param.topology.num_nodes) +
                                  (instance.param.path == NetworkPath::kDirect ? "_direct"
                                                                               : "_hierarchical");
                         });

TEST(RelayPlan, CarrierIsOfTheSameRailOrTheTargetItself) {
  const RelayPlan hierarchical{{8, 2}, NetworkPath::kHierarchical};
  EXPECT_EQ(hierarchical.carrier(1, Rank(2)), Rank(6));
  EXPECT_EQ(hierarchical.carrier(0, Rank(6)), Rank(2));
  const RelayPlan direct{{8, 2}, NetworkPath::kDirect};
  EXPECT_EQ(direct.carrier(5, Rank(2)), Rank(5));
}

}  // namespace
}  // namespace moelink
