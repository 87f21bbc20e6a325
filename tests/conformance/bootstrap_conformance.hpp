// What every bootstrap must do. An implementation joins by a struct with make(num_ranks).
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "conformance/rank_results.hpp"

namespace moelink::test {

template <class World>
class BootstrapConformance : public testing::Test {
 protected:
  // One rank does not take part; the others must name it.
  static void expect_missing_rank_named(std::size_t missing) {
    auto bootstraps = World::make(4);
    const auto results = run_ranks(bootstraps, [&](std::unique_ptr<Bootstrap>& bootstrap) {
      gather(*bootstrap, "first");
      if (bootstrap->rank().index() == missing) return;
      gather(*bootstrap, "blob", kShortWait);
    });
    expect_others_failed(results, missing, ErrorCode::kTimeout);
  }

  // One rank gives its bootstrap up after a first success; the others must name it.
  static void expect_lost_rank_named(std::size_t lost) {
    auto bootstraps = World::make(4);
    const auto results = run_ranks(bootstraps, [&](std::unique_ptr<Bootstrap>& bootstrap) {
      gather(*bootstrap, "first");
      if (bootstrap->rank().index() == lost) {
        bootstrap.reset();
        return;
      }
      gather(*bootstrap, "second");
    });
    expect_others_failed(results, lost, ErrorCode::kPeerLost);
  }
};
TYPED_TEST_SUITE_P(BootstrapConformance);

TYPED_TEST_P(BootstrapConformance, KnowsItsRankAndTheNumberOfRanks) {
  const auto bootstraps = TypeParam::make(3);
  for (std::size_t i = 0; i < bootstraps.size(); ++i) {
    EXPECT_EQ(bootstraps[i]->rank().index(), i);
    EXPECT_EQ(bootstraps[i]->num_ranks(), 3);
  }
}

TYPED_TEST_P(BootstrapConformance, AllGatherReturnsBlobsOfAnySizeInRankOrder) {
  for (const int num_ranks : {1, 2, 5}) {
    auto bootstraps = TypeParam::make(num_ranks);
    const std::vector<std::size_t> sizes{0, 1, 4096, 3'000'000, 17};
    const auto results = run_ranks(bootstraps, [&](std::unique_ptr<Bootstrap>& bootstrap) {
      const Rank own = bootstrap->rank();
      const auto blobs = gather(*bootstrap, blob_of(own, sizes[own.index()]));
      ASSERT_EQ(blobs.size(), static_cast<std::size_t>(num_ranks));
      for (Rank rank(0); rank.value() < num_ranks; rank = rank.next()) {
        EXPECT_TRUE(blobs[rank.index()] == blob_of(rank, sizes[rank.index()]))
            << "blob of rank " << rank.value() << " at rank " << own.value();
      }
    });
    expect_all_succeeded(results);
  }
}

TYPED_TEST_P(BootstrapConformance, AllGatherKeepsRoundsApartWhenRepeatedAThousandTimes) {
  auto bootstraps = TypeParam::make(3);
  const auto results = run_ranks(bootstraps, [](std::unique_ptr<Bootstrap>& bootstrap) {
    for (int round = 0; round < 1000; ++round) {
      const auto blobs = gather(*bootstrap, blob_of(bootstrap->rank(), 9, round));
      for (Rank rank(0); rank.value() < 3; rank = rank.next()) {
        ASSERT_EQ(blobs.at(rank.index()), blob_of(rank, 9, round)) << "round " << round;
      }
    }
  });
  expect_all_succeeded(results);
}

TYPED_TEST_P(BootstrapConformance, BarrierReturnsOnlyAfterAllHaveCalledIt) {
  constexpr int kNumRanks = 4;
  constexpr int kNumRounds = 50;
  auto bootstraps = TypeParam::make(kNumRanks);
  std::atomic<int> num_calls{0};
  const auto results = run_ranks(bootstraps, [&](std::unique_ptr<Bootstrap>& bootstrap) {
    for (int round = 1; round <= kNumRounds; ++round) {
      ++num_calls;
      bootstrap->barrier(kWhat, Deadline::after(kLongWait));
      EXPECT_GE(num_calls.load(), round * kNumRanks);
    }
  });
  expect_all_succeeded(results);
}

TYPED_TEST_P(BootstrapConformance, TimeoutNamesTheMissingRank) {
  this->expect_missing_rank_named(2);
}

TYPED_TEST_P(BootstrapConformance, TimeoutNamesRankZeroWhenItIsMissing) {
  this->expect_missing_rank_named(0);
}

TYPED_TEST_P(BootstrapConformance, LostRankIsNamedBeforeTheDeadline) {
  this->expect_lost_rank_named(2);
}

TYPED_TEST_P(BootstrapConformance, LostRankZeroIsNamedBeforeTheDeadline) {
  this->expect_lost_rank_named(0);
}

TYPED_TEST_P(BootstrapConformance, RankMayLeaveAfterTheLastCollective) {
  auto bootstraps = TypeParam::make(4);
  const auto results = run_ranks(bootstraps, [](std::unique_ptr<Bootstrap>& bootstrap) {
    for (int round = 0; round < 20; ++round)
      gather(*bootstrap, blob_of(bootstrap->rank(), 100'000));
    bootstrap.reset();
  });
  expect_all_succeeded(results);
}

TYPED_TEST_P(BootstrapConformance, GroupStaysFailedAfterATimeout) {
  auto bootstraps = TypeParam::make(3);
  const auto fail_then_retry = [](std::unique_ptr<Bootstrap>& bootstrap) {
    gather(*bootstrap, "first");
    if (bootstrap->rank() == Rank(1)) return;
    EXPECT_THROW(gather(*bootstrap, "second", kShortWait), Error);
    gather(*bootstrap, "third");
  };
  expect_others_failed(run_ranks(bootstraps, fail_then_retry), 1, ErrorCode::kTimeout);
}

REGISTER_TYPED_TEST_SUITE_P(BootstrapConformance, KnowsItsRankAndTheNumberOfRanks,
                            AllGatherReturnsBlobsOfAnySizeInRankOrder,
                            AllGatherKeepsRoundsApartWhenRepeatedAThousandTimes,
                            BarrierReturnsOnlyAfterAllHaveCalledIt, TimeoutNamesTheMissingRank,
                            TimeoutNamesRankZeroWhenItIsMissing, LostRankIsNamedBeforeTheDeadline,
                            LostRankZeroIsNamedBeforeTheDeadline,
                            RankMayLeaveAfterTheLastCollective, GroupStaysFailedAfterATimeout);

}  // namespace moelink::test
