// Phases of a buffer.
#include "backend/buffer_phase.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moelink/errors.hpp"

namespace moelink {
namespace {

constexpr Operation kCall = Operation::kCombine;

// The error of a call on the buffer; kInternal with no text if there is none.
Error error_of(const BufferPhase& phase) {
  try {
    phase.require_open(kCall, Rank(3));
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorCode::kInternal, "");
}

TEST(BufferPhase, AnOpenBufferTakesCalls) {
  const BufferPhase phase;
  EXPECT_EQ(phase.phase(), BufferPhase::Phase::kOpen);
  EXPECT_NO_THROW(phase.require_open(kCall, Rank(0)));
}

TEST(BufferPhase, ABrokenBufferSaysWhyItBrokeFirst) {
  BufferPhase phase;
  EXPECT_TRUE(phase.break_open(Operation::kDispatch, Rank(3), "rank 1 has died"));
  EXPECT_FALSE(phase.break_open(Operation::kCombine, Rank(3), "something later"));
  const Error error = error_of(phase);
  EXPECT_EQ(error.code(), ErrorCode::kPeerLost);
  EXPECT_THAT(error.what(), testing::HasSubstr("combine (rank 3): the buffer is broken"));
  EXPECT_THAT(error.what(), testing::HasSubstr("rank 1 has died"));
}

TEST(BufferPhase, AClosedBufferStaysClosedAndCannotBreak) {
  BufferPhase phase;
  phase.close();
  EXPECT_FALSE(phase.break_open(kCall, Rank(3), "too late"));
  const Error error = error_of(phase);
  EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(error.what(), testing::HasSubstr("combine (rank 3): the buffer is closed"));
}

}  // namespace
}  // namespace moelink
