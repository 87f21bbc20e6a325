// The trace hook and the names that it reports.
#include "moelink/trace.hpp"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "base/trace_scope.hpp"

namespace moelink {
namespace {

class TraceTest : public ::testing::Test {
 protected:
  void TearDown() override { set_trace_hook({}); }
};

TEST_F(TraceTest, ScopeReportsBeginAndEndWithItsNamesAndRank) {
  std::vector<TraceEvent> events;
  set_trace_hook([&](const TraceEvent& event) { events.push_back(event); });
  {
    const TraceScope scope(Operation::kCombine, Stage::kReduce, Rank(5));
    ASSERT_EQ(events.size(), 1U);
    EXPECT_EQ(events[0].point, TracePoint::kBegin);
  }
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[1].point, TracePoint::kEnd);
  for (const TraceEvent& event : events) {
    EXPECT_EQ(event.operation, Operation::kCombine);
    EXPECT_EQ(event.stage, Stage::kReduce);
    EXPECT_EQ(event.rank, Rank(5));
  }
  EXPECT_LE(events[0].time, events[1].time);
}

TEST_F(TraceTest, RemovedHookIsNotCalled) {
  int calls = 0;
  set_trace_hook([&](const TraceEvent&) { ++calls; });
  set_trace_hook({});
  {
    const TraceScope scope(Operation::kDispatch, Stage::kSend, Rank(0));
  }
  EXPECT_EQ(calls, 0);
}

TEST_F(TraceTest, HookMayReplaceItself) {
  int second_calls = 0;
  set_trace_hook(
      [&](const TraceEvent&) { set_trace_hook([&](const TraceEvent&) { ++second_calls; }); });
  {
    const TraceScope scope(Operation::kDispatch, Stage::kSend, Rank(0));
  }
  EXPECT_EQ(second_calls, 1);  // the end
}

TEST_F(TraceTest, StagesAndOperationsHaveTheirOwnNames) {
  std::set<std::string> stages;
  for (int i = 0; i < kNumStages; ++i) stages.insert(stage_name(static_cast<Stage>(i)));
  EXPECT_EQ(stages.size(), static_cast<std::size_t>(kNumStages));
  EXPECT_STREQ(stage_name(Stage::kRoute), "route");
  EXPECT_STREQ(stage_name(Stage::kSendBack), "send_back");
  EXPECT_STREQ(stage_name(Stage::kRelease), "release");

  std::set<std::string> operations;
  for (int i = 0; i <= static_cast<int>(Operation::kClose); ++i) {
    operations.insert(operation_name(static_cast<Operation>(i)));
  }
  EXPECT_EQ(operations.size(), static_cast<std::size_t>(Operation::kClose) + 1);
  EXPECT_EQ(operations.count("unknown"), 0U);
}

}  // namespace
}  // namespace moelink
