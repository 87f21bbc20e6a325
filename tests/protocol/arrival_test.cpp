// Immediates: every field comes back, and names a counter of its own.
#include "protocol/arrival.hpp"

#include <gtest/gtest.h>

#include <set>

namespace moelink {
namespace {

TEST(Immediate, RoundTripsItsLargestAndSmallestFields) {
  for (const std::int32_t source : {0, 1, 511, kMaxRanks - 1}) {
    for (const std::uint32_t counter : {0U, 1U, Immediate::kMaxCounters - 1}) {
      for (const std::uint64_t epoch : {0U, 1U, 255U}) {
        for (std::uint32_t pieces = 0; pieces <= kMaxLog2Pieces; ++pieces) {
          const Immediate sent = Immediate::of({Epoch(epoch), counter}, Rank(source), pieces);
          const Immediate seen(sent.word());
          EXPECT_EQ(seen.source(), Rank(source));
          EXPECT_EQ(seen.counter(), counter);
          EXPECT_EQ(seen.epoch_bits(), epoch);
          EXPECT_EQ(seen.log2_pieces(), pieces);
        }
      }
    }
  }
}

TEST(Immediate, CarriesTheLowestBitsOfTheEpoch) {
  const ArrivalKey early{Epoch(5), 3};
  const ArrivalKey late{Epoch(5 + 1000 * std::uint64_t{Immediate::kMaxEpochLanes}), 3};
  EXPECT_EQ(Immediate::of(early, Rank(1)).word(), Immediate::of(late, Rank(1)).word());
}

TEST(Immediate, PiecesOfAPutAddUpToOne) {
  for (std::uint32_t log2_pieces = 0; log2_pieces <= kMaxLog2Pieces; ++log2_pieces) {
    const Immediate piece = Immediate::of({Epoch(1), 1}, Rank(1), log2_pieces);
    EXPECT_EQ(piece.units() << log2_pieces, kUnitsPerPut);
  }
}

TEST(ArrivalLayout, GivesEachSourceCounterAndLaneAWordOfItsOwn) {
  const ArrivalLayout layout{.num_ranks = 5, .num_counters = 7, .num_epoch_lanes = 4};
  std::set<std::size_t> words;
  for (std::uint64_t epoch = 0; epoch < 4; ++epoch) {
    for (std::uint32_t counter = 0; counter < 7; ++counter) {
      for (std::int32_t source = 0; source < 5; ++source) {
        words.insert(layout.index(Immediate::of({Epoch(epoch), counter}, Rank(source))));
      }
    }
  }
  EXPECT_EQ(words.size(), layout.num_words());
  EXPECT_EQ(*words.rbegin(), layout.num_words() - 1);
}

TEST(ArrivalLayout, RepeatsWhenEpochsPassTheLanes) {
  const ArrivalLayout layout{.num_ranks = 2, .num_counters = 2, .num_epoch_lanes = 4};
  const auto index = [&](std::uint64_t epoch) {
    return layout.index(Immediate::of({Epoch(epoch), 1}, Rank(1)));
  };
  EXPECT_EQ(index(3), index(7));
  EXPECT_EQ(index(255), index(259));
  EXPECT_NE(index(255), index(256));
}

TEST(ArrivalLayout, RefusesWhatItHasNoWordFor) {
  const ArrivalLayout layout{.num_ranks = 2, .num_counters = 3, .num_epoch_lanes = 4};
  EXPECT_TRUE(layout.contains(Immediate::of({Epoch(9), 2}, Rank(1))));
  EXPECT_FALSE(layout.contains(Immediate::of({Epoch(9), 3}, Rank(1))));
  EXPECT_FALSE(layout.contains(Immediate::of({Epoch(9), 2}, Rank(2))));
}

}  // namespace
}  // namespace moelink
