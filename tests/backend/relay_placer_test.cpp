// Who forwards a token must find the rows that its source has chosen.
#include "backend/cpu/network/relay_placer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "backend/cpu/route.hpp"
#include "conformance/buffer_cases.hpp"
#include "protocol/placement.hpp"

namespace moelink {
namespace {

constexpr int kNumTopk = 3;
constexpr std::int64_t kNumTokens = 40;
constexpr int kExpertsPerRank = 2;

struct Plan {
  RelayPlan relay;
  Layout layout;

  int num_ranks() const { return relay.topology.num_ranks; }
};

// What every rank knows once counts are exchanged, and what it has placed itself.
class Routings {
 public:
  explicit Routings(const Plan& plan) : plan_(plan) {
    test::Random random(7);
    std::vector<std::int32_t> counts;
    for (Rank rank(0); rank.value() < plan.num_ranks(); rank = rank.next()) {
      std::vector<std::int64_t>& ids = ids_.emplace_back();
      for (int i = 0; i < kNumTokens * kNumTopk; ++i) {
        ids.push_back(random.below(4) == 0 ? kNoExpert
                                           : random.below(plan.num_ranks() * kExpertsPerRank));
      }
      states_.push_back(empty_state());
      const auto row = route_tokens(topk(rank), nullptr, rank, states_.back());
      counts.insert(counts.end(), row.begin(), row.end());
    }
    for (Rank rank(0); rank.value() < plan.num_ranks(); rank = rank.next()) {
      states_[rank.index()].counts = counts;
      place_tokens(topk(rank), rank, states_[rank.index()]);
    }
  }

  const RoutingState& of(Rank rank) const { return states_[rank.index()]; }
  TopkList topk(Rank rank) {
    return TopkList(
        TensorView::contiguous(ids_[rank.index()].data(), DType::kInt64, {kNumTokens, kNumTopk}));
  }

 private:
  RoutingState empty_state() const {
    RoutingState state;
    state.num_ranks = plan_.num_ranks();
    state.num_experts = plan_.num_ranks() * kExpertsPerRank;
    state.num_topk = kNumTopk;
    state.num_tokens = kNumTokens;
    state.layout = plan_.layout;
    state.expert_alignment = 4;
    return state;
  }

  Plan plan_;
  std::vector<std::vector<std::int64_t>> ids_;  // by rank
  std::vector<RoutingState> states_;            // by rank
};

class RelayPlacers : public ::testing::TestWithParam<Plan> {
 protected:
  bool is_inside(int group, int rank) const {
    return rank >= 0 && GetParam().relay.group_of(Rank(rank)) == group;
  }

  // What the carrier of `source` works out from messages.
  RelayedTokens relay(Rank source, int group, const std::vector<std::int32_t>& tokens) {
    const RelayPlan& plan = GetParam().relay;
    const RoutingState& theirs = routings_.of(source);
    RelayPlacer placer(routings_.of(plan.carrier(group, source)), plan, group, source);
    RelayedTokens relayed;
    for (const std::int32_t token : tokens) {
      std::uint32_t destinations = 0;
      for (int i = 0; i < plan.group_size(); ++i) {
        const Rank rank(plan.first_rank(group).value() + i);
        if (theirs.placement().row_at(token, rank) != kNoRow) destinations |= 1U << i;
      }
      std::int32_t ids[kNumTopk];
      for (int k = 0; k < kNumTopk; ++k) {
        ids[k] = static_cast<std::int32_t>(routings_.topk(source).at(token, k));
      }
      placer.place(token, &destinations, ids, relayed);
    }
    return relayed;
  }

  void expect_same_rows(Rank source, int group, std::size_t i, const RelayedTokens& relayed) {
    const std::int32_t token = relayed.tokens[i];
    const Placement expected = routings_.of(source).placement();
    const Placement seen = relayed.placement(i, GetParam().num_ranks(), kNumTopk);
    for (Rank rank(0); rank.value() < GetParam().num_ranks(); rank = rank.next()) {
      const bool inside = is_inside(group, rank.value());
      EXPECT_EQ(seen.row_at(0, rank), inside ? expected.row_at(token, rank) : kNoRow);
    }
    for (int k = 0; k < kNumTopk; ++k) {
      const int owner = expected.owner_of(token, k);
      const bool inside = is_inside(group, owner);
      EXPECT_EQ(seen.owner_of(0, k), inside ? owner : -1);
      if (GetParam().layout == Layout::kCompact) continue;
      EXPECT_EQ(seen.expert_row_of(0, k), inside ? expected.expert_row_of(token, k) : kNoRow);
    }
  }

  Routings routings_{GetParam()};
};

TEST_P(RelayPlacers, FindTheRowsThatTheSourceHasChosen) {
  const RelayPlan& plan = GetParam().relay;
  for (Rank source(0); source.value() < GetParam().num_ranks(); source = source.next()) {
    for (int group = 0; group < plan.num_groups(); ++group) {
      if (!plan.is_far(group, source)) continue;
      const auto tokens = tokens_to_group(routings_.of(source), plan, group);
      EXPECT_TRUE(std::ranges::is_sorted(tokens));
      EXPECT_GT(tokens.size(), 5U);
      EXPECT_LT(tokens.size(), static_cast<std::size_t>(kNumTokens));
      const RelayedTokens relayed = relay(source, group, tokens);
      ASSERT_EQ(relayed.tokens, tokens);
      for (std::size_t i = 0; i < tokens.size(); ++i) expect_same_rows(source, group, i, relayed);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Everywhere, RelayPlacers,
    ::testing::Values(Plan{{{6, 2}, NetworkPath::kHierarchical}, Layout::kCompact},
                      Plan{{{6, 2}, NetworkPath::kHierarchical}, Layout::kExpertMajor},
                      Plan{{{6, 3}, NetworkPath::kHierarchical}, Layout::kExpertMajor},
                      Plan{{{6, 2}, NetworkPath::kDirect}, Layout::kCompact},
                      Plan{{{6, 2}, NetworkPath::kDirect}, Layout::kExpertMajor}),
    [](const auto& instance) {
      const Plan& plan = instance.param;
      return std::string(plan.relay.path == NetworkPath::kDirect ? "direct_" : "hierarchical_") +
             (plan.layout == Layout::kCompact ? "compact_" : "expert_major_") +
             std::to_string(plan.relay.topology.num_nodes) + "_nodes";
    });

}  // namespace
}  // namespace moelink
