// Agreement on masks between ranks that read and publish at different speeds.
#include "backend/cpu/mask_agreement.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

#include "backend/fake_regions.hpp"

namespace moelink {
namespace {

constexpr int kNumRanks = 3;
constexpr Epoch kEpoch(4);
constexpr Rank kMasked(2);

class MaskAgreement : public ::testing::Test {
 protected:
  MaskAgreement() {
    for (Rank rank(0); rank.value() < kNumRanks; rank = rank.next()) {
      auto context = std::make_unique<CpuContext>();
      context->rank = rank;
      context->topology.num_ranks = kNumRanks;
      context->timeout = std::chrono::seconds(20);
      context->survival = Survival::kMask;
      context->control = ranks_.areas[rank.index()];
      context->signals = std::make_unique<SignalBoard>(
          context->control, SignalBoard::Cores::kShared, Survival::kMask);
      context->epoch = kEpoch;
      contexts_.push_back(std::move(context));
    }
  }

  CpuContext& context(int rank) { return *contexts_[static_cast<std::size_t>(rank)]; }
  bool has_masked(int rank, Rank peer) { return context(rank).signals->masks().is_masked(peer); }

  test::FakeRanks ranks_{kNumRanks};
  std::vector<std::unique_ptr<CpuContext>> contexts_;
};

TEST_F(MaskAgreement, ReadsTheRoundThatItIsInEvenIfThePeerHasPublishedTheNext) {
  context(0).signals->masks().mask(kMasked);
  publish_masks(context(0), 1);
  std::thread peer([&] { agree_on_masks(context(1), Operation::kDispatch); });
  // The peer has adopted the mask and waits for the second round; rank 0 reads the first one now.
  context(0).signals->wait(Rank(1), SignalChannel::kMasksPublished, SignalValue::of(kEpoch, 2),
                           context(0).wait_context(Operation::kDispatch, Stage::kExchange));
  agree_on_masks(context(0), Operation::kDispatch);
  peer.join();
  EXPECT_TRUE(has_masked(0, kMasked));
  EXPECT_TRUE(has_masked(1, kMasked));
  EXPECT_FALSE(has_masked(0, Rank(1)));
  EXPECT_FALSE(has_masked(1, Rank(0)));
}

TEST_F(MaskAgreement, UnitesTheMasksOfRanksThatStartAtOnce) {
  for (std::uint64_t i = 0; i < 200; ++i) {
    for (const int rank : {0, 1}) context(rank).epoch = Epoch(kEpoch.value() + 1 + i);
    context(0).signals->masks().mask(kMasked);
    context(1).signals->masks().unmask(kMasked);
    std::thread peer([&] { agree_on_masks(context(1), Operation::kDispatch); });
    agree_on_masks(context(0), Operation::kDispatch);
    peer.join();
    ASSERT_TRUE(has_masked(1, kMasked));
    ASSERT_FALSE(has_masked(0, Rank(1)));
    ASSERT_FALSE(has_masked(1, Rank(0)));
  }
}

}  // namespace
}  // namespace moelink
