// Final rows, against sorting all rows by the order that the contract defines.
#include "protocol/placement.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <tuple>
#include <vector>

namespace moelink {
namespace {

// One selection of one token: the key by which expert-major rows are ordered inside a group.
struct Selection {
  int source;
  int token;
  int k;
  int expert;
};

struct RandomRouting {
  int num_ranks;
  int num_experts;
  std::vector<Selection> selections;  // by source, token, k
  std::vector<std::int32_t> counts;

  CountMatrix matrix() const { return CountMatrix{counts.data(), num_ranks, num_experts}; }
  ExpertMap map() const { return ExpertMap::make(num_experts, num_ranks); }
};

RandomRouting random_routing(std::mt19937& rng) {
  const auto pick = [&rng](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(rng);
  };
  RandomRouting routing{.num_ranks = pick(1, 6)};
  routing.num_experts = routing.num_ranks * pick(1, 4);
  routing.counts.resize(static_cast<std::size_t>(routing.num_ranks) *
                        CountMatrix::row_length(routing.num_ranks, routing.num_experts));
  std::int32_t* row = routing.counts.data();
  for (int source = 0; source < routing.num_ranks; ++source) {
    const int num_tokens = pick(0, 9);
    for (int token = 0; token < num_tokens; ++token) {
      std::set<int> destinations;
      for (int k = 0; k < 3; ++k) {
        const int expert = pick(-1, routing.num_experts - 1);
        if (expert < 0) continue;
        routing.selections.push_back({source, token, k, expert});
        destinations.insert(routing.map().owner(Expert(expert)).value());
        ++row[routing.num_ranks + expert];
      }
      for (const int destination : destinations) ++row[destination];
    }
    row += CountMatrix::row_length(routing.num_ranks, routing.num_experts);
  }
  return routing;
}

// Row of the first token of `source` at `destination`: how many distinct tokens come before.
std::int64_t sorted_compact_start(const RandomRouting& routing, int source, int destination) {
  std::set<std::tuple<int, int>> before;
  for (const Selection& selection : routing.selections) {
    const int owner = routing.map().owner(Expert(selection.expert)).value();
    if (owner == destination && selection.source < source) {
      before.insert({selection.source, selection.token});
    }
  }
  return static_cast<std::int64_t>(before.size());
}

// Rows of `destination`, padding as -1: indexes into the list of selections.
std::vector<int> sorted_expert_rows(const RandomRouting& routing, int destination, int alignment) {
  std::vector<int> rows;
  const int per_rank = routing.map().experts_per_rank;
  for (int expert = destination * per_rank; expert < (destination + 1) * per_rank; ++expert) {
    for (std::size_t i = 0; i < routing.selections.size(); ++i) {
      if (routing.selections[i].expert == expert) rows.push_back(static_cast<int>(i));
    }
    while (rows.size() % static_cast<std::size_t>(alignment) != 0) rows.push_back(-1);
  }
  return rows;
}

// As a sender computes it: start of the group, then the selections of lower ranks, then its own.
std::vector<int> computed_expert_rows(const RandomRouting& routing, Rank destination,
                                      int alignment) {
  const ExpertMap map = routing.map();
  std::vector<std::int64_t> starts(static_cast<std::size_t>(map.experts_per_rank));
  const std::int64_t num_rows =
      expert_group_starts(routing.matrix(), map, destination, alignment, starts.data());
  std::vector<int> rows(static_cast<std::size_t>(num_rows), -1);
  std::vector<std::vector<std::int64_t>> sent(static_cast<std::size_t>(routing.num_ranks));
  for (auto& of_source : sent) of_source.resize(static_cast<std::size_t>(routing.num_experts));
  for (std::size_t i = 0; i < routing.selections.size(); ++i) {
    const Selection& selection = routing.selections[i];
    const Expert expert(selection.expert);
    if (map.owner(expert) != destination) continue;
    const std::int64_t before = routing.matrix().selections_before(Rank(selection.source), expert);
    auto& own = sent[static_cast<std::size_t>(selection.source)][expert.index()];
    const std::int64_t row = starts[map.local(expert).index()] + before + own++;
    rows.at(static_cast<std::size_t>(row)) = static_cast<int>(i);
  }
  return rows;
}

TEST(Placement, CompactStartsEqualSortingByRankAndToken) {
  std::mt19937 rng(1);
  for (int round = 0; round < 200; ++round) {
    const RandomRouting routing = random_routing(rng);
    for (int destination = 0; destination < routing.num_ranks; ++destination) {
      for (int source = 0; source < routing.num_ranks; ++source) {
        EXPECT_EQ(compact_start(routing.matrix(), Rank(source), Rank(destination)).value(),
                  sorted_compact_start(routing, source, destination));
      }
      EXPECT_EQ(
          num_receive_rows(routing.matrix(), routing.map(), Rank(destination), Layout::kCompact, 1),
          sorted_compact_start(routing, routing.num_ranks, destination));
    }
  }
}

TEST(Placement, ExpertMajorRowsEqualSortingByExpertRankTokenAndSelection) {
  std::mt19937 rng(2);
  for (int round = 0; round < 200; ++round) {
    const RandomRouting routing = random_routing(rng);
    const int alignment = std::vector<int>{1, 2, 7, 16}[static_cast<std::size_t>(round % 4)];
    for (int destination = 0; destination < routing.num_ranks; ++destination) {
      const auto expected = sorted_expert_rows(routing, destination, alignment);
      EXPECT_EQ(computed_expert_rows(routing, Rank(destination), alignment), expected);
      EXPECT_EQ(num_receive_rows(routing.matrix(), routing.map(), Rank(destination),
                                 Layout::kExpertMajor, alignment),
                static_cast<std::int64_t>(expected.size()));
    }
  }
}

TEST(Placement, EmptyExpertsTakeNoRowsWhateverTheAlignment) {
  const std::vector<std::int32_t> rows = {3, 0, 3,
                                          0};  // 1 rank, 3 experts; only expert 1 is chosen
  const CountMatrix counts{rows.data(), 1, 3};
  std::int64_t starts[3] = {-1, -1, -1};
  EXPECT_EQ(expert_group_starts(counts, ExpertMap::make(3, 1), Rank(0), 128, starts), 128);
  EXPECT_EQ(starts[0], 0);
  EXPECT_EQ(starts[1], 0);
  EXPECT_EQ(starts[2], 128);
}

}  // namespace
}  // namespace moelink
