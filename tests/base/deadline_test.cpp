// Time left until a deadline.
#include "base/deadline.hpp"

#include <gtest/gtest.h>

namespace moelink {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

TEST(Deadline, OfNoTimeHasExpiredWithNothingLeft) {
  const Deadline deadline = Deadline::after(milliseconds(0));
  EXPECT_TRUE(deadline.expired());
  EXPECT_EQ(deadline.remaining(milliseconds(50)), nanoseconds(0));
}

TEST(Deadline, InTheFarFutureLeavesTheWholeLimit) {
  const Deadline deadline = Deadline::after(std::chrono::hours(24));
  EXPECT_FALSE(deadline.expired());
  EXPECT_EQ(deadline.remaining(milliseconds(50)), milliseconds(50));
}

TEST(Deadline, RemembersTheSpanItWasGiven) {
  EXPECT_EQ(Deadline::after(milliseconds(1234)).span(), milliseconds(1234));
}

}  // namespace
}  // namespace moelink
