// Order of signal words.
#include "protocol/signal.hpp"

#include <gtest/gtest.h>

namespace moelink {
namespace {

TEST(SignalValue, KeepsEpochAndProgress) {
  constexpr SignalValue kValue = SignalValue::of(Epoch(123'456'789'012), 4321);
  EXPECT_EQ(kValue.epoch(), Epoch(123'456'789'012));
  EXPECT_EQ(kValue.progress(), 4321U);
  EXPECT_EQ(SignalValue(kValue.word()).epoch(), kValue.epoch());
}

TEST(SignalValue, IsReachedByItselfAndByWhatComesLater) {
  const SignalValue value = SignalValue::of(Epoch(7), 3);
  EXPECT_TRUE(value.reached_by(value.word()));
  EXPECT_TRUE(value.reached_by(SignalValue::of(Epoch(7), 4).word()));
  EXPECT_TRUE(value.reached_by(SignalValue::of(Epoch(8), 0).word()));
}

TEST(SignalValue, IsNotReachedByWhatCameBefore) {
  const SignalValue value = SignalValue::of(Epoch(7), 3);
  EXPECT_FALSE(value.reached_by(0));
  EXPECT_FALSE(value.reached_by(SignalValue::of(Epoch(7), 2).word()));
  EXPECT_FALSE(value.reached_by(SignalValue::of(Epoch(6), SignalValue::kMaxProgress).word()));
}

TEST(SignalValue, LargestProgressStaysBelowTheNextEpoch) {
  const SignalValue last = SignalValue::of(Epoch(9), SignalValue::kMaxProgress);
  const SignalValue next = SignalValue::of(Epoch(10), 0);
  EXPECT_EQ(last.word() + 1, next.word());
  EXPECT_EQ(last.epoch(), Epoch(9));
}

TEST(SignalValue, EpochsOutlastAnyJob) {
  // 48 bits: a million operations a second for eight years.
  constexpr Epoch kLast((std::uint64_t{1} << 48) - 1);
  constexpr SignalValue kValue = SignalValue::of(kLast, kDone);
  EXPECT_EQ(kValue.epoch(), kLast);
  EXPECT_FALSE(kValue.reached_by(SignalValue::of(Epoch(kLast.value() - 1), kDone).word()));
}

}  // namespace
}  // namespace moelink
