// When refusals mean that a peer is lost, and when they only mean that it is slow.
#include "transport/connection_watch.hpp"

#include <gtest/gtest.h>

namespace moelink {
namespace {

using std::chrono::milliseconds;

class ConnectionWatches : public ::testing::Test {
 protected:
  void reach_once() {
    watch_.note_accepted();
    watch_.note_completed();
  }
  // After so many milliseconds of the test.
  bool is_lost_at(int time) {
    return watch_.note_refused(ConnectionWatch::Clock::time_point(milliseconds(time)));
  }

  ConnectionWatch watch_;
};

TEST_F(ConnectionWatches, TakeAPeerForLostThatRefusesForASecond) {
  reach_once();
  EXPECT_FALSE(is_lost_at(10));
  EXPECT_FALSE(is_lost_at(510));
  EXPECT_FALSE(is_lost_at(1009));
  EXPECT_TRUE(is_lost_at(1010));
}

TEST_F(ConnectionWatches, WaitForAPeerThatHasNeverBeenReached) {
  EXPECT_FALSE(is_lost_at(0));
  EXPECT_FALSE(is_lost_at(1900));
  EXPECT_FALSE(is_lost_at(3800));
}

TEST_F(ConnectionWatches, WaitWhileSomethingOnItsWayTakesUpRoom) {
  reach_once();
  watch_.note_accepted();
  EXPECT_FALSE(is_lost_at(0));
  EXPECT_FALSE(is_lost_at(1900));
  watch_.note_failed();
  EXPECT_FALSE(is_lost_at(2000));
  EXPECT_TRUE(is_lost_at(3000));
}

TEST_F(ConnectionWatches, BeginAnewAfterAnAcceptedPutAndAfterALongPause) {
  reach_once();
  EXPECT_FALSE(is_lost_at(0));
  reach_once();
  EXPECT_FALSE(is_lost_at(1500));
  EXPECT_FALSE(is_lost_at(60'000));
  EXPECT_FALSE(is_lost_at(60'500));
  EXPECT_TRUE(is_lost_at(61'000));
}

}  // namespace
}  // namespace moelink
