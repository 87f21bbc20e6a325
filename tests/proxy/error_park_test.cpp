// The first error stays and reaches everyone.
#include "proxy/error_park.hpp"

#include <gtest/gtest.h>

namespace moelink {
namespace {

TEST(ErrorPark, KeepsTheFirstErrorAndThrowsItEveryTime) {
  ErrorPark park;
  EXPECT_NO_THROW(park.throw_if_occupied());
  EXPECT_TRUE(park.park(Error(ErrorCode::kPeerLost, "first")));
  EXPECT_FALSE(park.park(Error(ErrorCode::kTimeout, "second")));
  for (int i = 0; i < 3; ++i) {
    try {
      park.throw_if_occupied();
      ADD_FAILURE() << "nothing was thrown";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kPeerLost);
      EXPECT_STREQ(error.what(), "peer lost: first");
    }
  }
}

}  // namespace
}  // namespace moelink
