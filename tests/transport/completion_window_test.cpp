// Puts complete in any order; the window tells up to where all have.
#include "transport/completion_window.hpp"

#include <gtest/gtest.h>

namespace moelink {
namespace {

TEST(CompletionWindow, AdvancesOverTheOldestOnly) {
  CompletionWindow window;
  EXPECT_EQ(window.open(Rank(1), 1), 1U);
  EXPECT_EQ(window.open(Rank(2), 1), 2U);
  EXPECT_EQ(window.open(Rank(3), 1), 3U);
  window.complete(2);
  EXPECT_EQ(window.completed_through(), 0U);
  EXPECT_EQ(window.oldest_peer(), Rank(1));
  window.complete(1);
  EXPECT_EQ(window.completed_through(), 2U);
  EXPECT_EQ(window.oldest_peer(), Rank(3));
  window.complete(3);
  EXPECT_TRUE(window.empty());
  EXPECT_EQ(window.oldest_peer(), std::nullopt);
}

TEST(CompletionWindow, WaitsForAllPartsAndTakesPutsThatAreComplete) {
  CompletionWindow window;
  window.open(Rank(0), 2);
  window.open(Rank(0), 0);
  window.complete(1);
  EXPECT_EQ(window.completed_through(), 0U);
  window.complete(1);
  EXPECT_EQ(window.completed_through(), 2U);
  EXPECT_EQ(window.open(Rank(0), 0), 3U);
  EXPECT_EQ(window.completed_through(), 3U);
}

}  // namespace
}  // namespace moelink
