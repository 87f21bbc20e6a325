// Masks: who drops out, and how a rank that was left out comes back.
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "conformance/open_buffers.hpp"
#include "conformance/small_low_latency.hpp"

namespace moelink::test {
namespace {

constexpr int kNumRanks = 3;
constexpr int kLeftOut = 2;

class ReturningRank : public ::testing::Test {
 protected:
  Buffer& buffer(int rank) { return buffers_[static_cast<std::size_t>(rank)]; }

  void on_all(const std::function<void(int rank)>& call) {
    expect_success(on_all_ranks(kNumRanks, call));
  }

  // What all ranks do to be one again.
  void come_back(int rank) {
    for (int peer = 0; peer < kNumRanks; ++peer) {
      if (peer != rank) buffer(rank).unmask_rank(Rank(peer));
    }
    buffer(rank).clean_low_latency();
  }

  void use_both_modes(int rank, int num_rounds) {
    for (int i = 0; i < num_rounds; ++i) {
      use_low_latency_once(buffer(rank), kNumRanks);
      use_once(buffer(rank));
    }
  }

  // Waits for the silent rank, then goes on without it in both modes.
  void go_on_without(int rank) {
    for (int i = 0; i < 4; ++i) {
      use_low_latency_once(buffer(rank), kNumRanks - 1);
      buffer(rank).barrier();
      buffer(rank).clean_low_latency();
    }
  }

  void expect_nobody_is_masked() {
    for (int rank = 0; rank < kNumRanks; ++rank) {
      for (int peer = 0; peer < kNumRanks; ++peer) {
        if (peer == rank) continue;
        EXPECT_FALSE(buffer(rank).is_masked(Rank(peer)));
      }
    }
  }

  std::vector<Buffer> buffers_ =
      open_buffers(kNumRanks, {.timeout = std::chrono::seconds(1), .survival = Survival::kMask});
};

TEST_F(ReturningRank, TakesPartInBothModesAgain) {
  for (int times = 0; times < 2; ++times) {
    on_all([&](int rank) { use_both_modes(rank, 3); });
    on_all([&](int rank) {
      if (rank != kLeftOut) go_on_without(rank);
    });
    on_all([&](int rank) {
      come_back(rank);
      use_both_modes(rank, 5);
    });
    expect_nobody_is_masked();
  }
  on_all([&](int rank) { buffer(rank).close(); });
}

TEST_F(ReturningRank, MayHaveMaskedTheOthersInACallOfItsOwn) {
  on_all([&](int rank) { use_both_modes(rank, 2); });
  on_all([&](int rank) {
    if (rank != kLeftOut) go_on_without(rank);
  });
  on_all([&](int rank) {
    if (rank == kLeftOut) buffer(rank).barrier();
  });
  EXPECT_TRUE(buffer(kLeftOut).is_masked(Rank(0)));
  on_all([&](int rank) {
    come_back(rank);
    use_both_modes(rank, 3);
  });
  expect_nobody_is_masked();
}

TEST_F(ReturningRank, MayHaveMissedTheVeryFirstCalls) {
  on_all([&](int rank) {
    if (rank != kLeftOut) go_on_without(rank);
  });
  on_all([&](int rank) {
    come_back(rank);
    use_both_modes(rank, 3);
  });
  expect_nobody_is_masked();
}

TEST_F(ReturningRank, MayBeTheOneThatHasGoneOn) {
  on_all([&](int rank) { use_both_modes(rank, 2); });
  on_all([&](int rank) {
    if (rank != kLeftOut) return;
    for (int peer = 0; peer < kLeftOut; ++peer) buffer(rank).mask_rank(Rank(peer));
    for (int i = 0; i < 5; ++i) {
      use_low_latency_once(buffer(rank), 1);
      buffer(rank).clean_low_latency();
    }
  });
  on_all([&](int rank) {
    come_back(rank);
    use_both_modes(rank, 3);
  });
  expect_nobody_is_masked();
}

// What it sends when it wakes up belongs to an operation that is over for the others.
TEST_F(ReturningRank, MayHaveBeenLateInTheMiddleOfADispatch) {
  on_all([&](int rank) { use_both_modes(rank, 1); });
  set_trace_hook([](const TraceEvent& event) {
    const bool here = event.rank == Rank(kLeftOut) && event.stage == Stage::kSend &&
                      event.point == TracePoint::kBegin;
    if (here) std::this_thread::sleep_for(std::chrono::milliseconds(1700));
  });
  on_all([&](int rank) { buffer(rank).dispatch(SmallCall(kNumRanks).config); });
  set_trace_hook({});
  EXPECT_TRUE(buffer(0).is_masked(Rank(kLeftOut)));
  on_all([&](int rank) {
    come_back(rank);
    use_both_modes(rank, 5);
  });
  expect_nobody_is_masked();
}

TEST_F(ReturningRank, ThatDoesNotComeIsMaskedAgain) {
  on_all([&](int rank) { use_both_modes(rank, 1); });
  on_all([&](int rank) {
    if (rank == kLeftOut) return;
    go_on_without(rank);
    come_back(rank);
    EXPECT_TRUE(buffer(rank).is_masked(Rank(kLeftOut)));
    use_low_latency_once(buffer(rank), kNumRanks - 1);
  });
}

}  // namespace
}  // namespace moelink::test
