// Ends of a buffer: closed, broken, destroyed; and what outlives it.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "conformance/memory_probes.hpp"
#include "conformance/open_buffers.hpp"

namespace moelink {
namespace {

using std::chrono::milliseconds;
using test::on_all_ranks;
using test::Outcome;
using test::outcome_of;
using test::SmallCall;

constexpr BufferConfig kImpatient{.timeout = milliseconds(200)};

void close_all(std::vector<Buffer>& buffers) {
  test::expect_success(on_all_ranks(static_cast<int>(buffers.size()), [&](int rank) {
    buffers[static_cast<std::size_t>(rank)].close();
  }));
}

TEST(ClosedBuffer, RefusesEveryOperation) {
  std::vector<Buffer> buffers = test::open_buffers(1);
  const SmallCall small(1);
  const DispatchResult received = buffers[0].dispatch(small.config);
  close_all(buffers);
  const std::vector<std::function<void()>> calls = {
      [&] { buffers[0].dispatch(small.config); },
      [&] { buffers[0].dispatch({.x = small.x.view, .handle = received.handle}); },
      [&] { buffers[0].combine({.x = received.recv_x.view, .handle = received.handle}); },
      [&] { buffers[0].barrier(); }};
  for (const auto& call : calls) {
    test::expect_failure(outcome_of(call), ErrorCode::kInvalidArgument,
                         {"(rank 0)", "the buffer is closed"});
  }
}

TEST(ClosedBuffer, MayBeClosedAgain) {
  std::vector<Buffer> buffers = test::open_buffers(2);
  close_all(buffers);
  close_all(buffers);
  EXPECT_NO_THROW(buffers[0].close());  // no peer is needed any more
}

TEST(ClosedBuffer, LeavesTensorsAndHandlesUsable) {
  std::optional<DispatchResult> received;
  {
    std::vector<Buffer> buffers = test::open_buffers(1);
    received = buffers[0].dispatch(SmallCall(1).config);
    close_all(buffers);
  }
  EXPECT_EQ(received->recv_x.view.as<std::uint16_t>()[319], 0x3f80);
  EXPECT_EQ(received->handle->recv_src_token().view.as<std::int32_t>()[4], 4);
}

TEST(MovedBuffer, WorksAtItsNewPlace) {
  std::vector<Buffer> buffers = test::open_buffers(1);
  Buffer moved(std::move(buffers[0]));
  test::use_once(moved);
  std::vector<Buffer> others = test::open_buffers(1);
  others[0] = std::move(moved);
  test::use_once(others[0]);
}

TEST(SilentPeer, IsNamedAtTheDeadlineWithTheStage) {
  std::vector<Buffer> buffers = test::open_buffers(3, kImpatient);
  const auto outcomes = on_all_ranks(3, [&](int rank) {
    if (rank == 1) return;
    buffers[static_cast<std::size_t>(rank)].dispatch(SmallCall(3).config);
  });
  for (const int rank : {0, 2}) {
    const Outcome& outcome = outcomes[static_cast<std::size_t>(rank)];
    // Whoever sees the deadline first tells the other one.
    EXPECT_TRUE(outcome.code == ErrorCode::kTimeout || outcome.code == ErrorCode::kPeerLost);
    test::expect_failure(outcome, *outcome.code,
                         {"stage exchange: rank 1 did not arrive within 200 ms"});
  }
}

TEST(BrokenBuffer, RefusesOperationsWithTheFirstReasonAndClosesAtOnce) {
  std::vector<Buffer> buffers = test::open_buffers(2, kImpatient);
  const SmallCall small(2);
  const Outcome first = outcome_of([&] { buffers[0].barrier(); });
  test::expect_failure(first, ErrorCode::kTimeout,
                       {"barrier (rank 0), stage exchange: rank 1 did not arrive"});
  for (int i = 0; i < 2; ++i) {
    test::expect_failure(
        outcome_of([&] { buffers[0].dispatch(small.config); }), ErrorCode::kPeerLost,
        {"dispatch (rank 0): the buffer is broken by an earlier failure", "rank 1 did not arrive"});
  }
  EXPECT_NO_THROW(buffers[0].close());
  test::expect_failure(outcome_of([&] { buffers[0].barrier(); }), ErrorCode::kInvalidArgument,
                       {"the buffer is closed"});
}

TEST(BrokenBuffer, TellsALatePeerWhyItGaveUp) {
  std::vector<Buffer> buffers = test::open_buffers(2, kImpatient);
  outcome_of([&] { buffers[0].barrier(); });
  test::expect_failure(outcome_of([&] { buffers[1].dispatch(SmallCall(2).config); }),
                       ErrorCode::kPeerLost,
                       {"dispatch (rank 1), stage exchange", "rank 0 gave up", "did not arrive"});
}

TEST(BrokenBuffer, DoesNotKeepTheGroupFromMakingANewOne) {
  const std::vector<Group> groups = Group::of_threads(2);
  {
    std::vector<Buffer> buffers = test::open_buffers(groups, kImpatient);
    outcome_of([&] { buffers[0].barrier(); });
  }
  std::vector<Buffer> buffers = test::open_buffers(groups);
  test::expect_usable(buffers);
}

TEST(DestroyedBuffer, EndsTheWaitOfAPeerWithTheReason) {
  std::vector<Buffer> buffers = test::open_buffers(2);
  std::thread waiting([&] {
    test::expect_failure(outcome_of([&] { buffers[0].dispatch(SmallCall(2).config); }),
                         ErrorCode::kPeerLost,
                         {"dispatch (rank 0), stage exchange",
                          "rank 1 gave up: its buffer was destroyed without close()"});
  });
  {
    const Buffer gone = std::move(buffers[1]);
  }
  waiting.join();
}

TEST(DestroyedBuffer, FinishesItsQueuedCallsFirst) {
  const SmallCall small(1);
  DispatchConfig config = small.config;
  config.stream.completion = Completion::kAsync;
  std::optional<DispatchResult> received;
  {
    std::vector<Buffer> buffers = test::open_buffers(1);
    received = buffers[0].dispatch(config);
  }
  EXPECT_NO_THROW(received->event.wait());
  EXPECT_EQ(received->recv_x.view.as<std::uint16_t>()[319], 0x3f80);
}

// Rank 1 returns its rows in place and so waits until its peers have read them. Rank 0 has read
// them and goes without close(), as a program that simply ends would; rank 2 reads them only then.
TEST(DestroyedBuffer, ThatHasFinishedTheCallDoesNotDisturbPeersThatAreStillInIt) {
  std::atomic<bool> has_gone{false};
  set_trace_hook([&](const TraceEvent& event) {
    const bool held_back = event.operation == Operation::kCombine && event.rank == Rank(2) &&
                           event.stage == Stage::kReduce && event.point == TracePoint::kBegin;
    if (!held_back) return;
    while (!has_gone) std::this_thread::yield();
    std::this_thread::sleep_for(milliseconds(30));  // lets rank 1 look after its peers
  });
  std::vector<Buffer> buffers = test::open_buffers(3);
  const auto outcomes = on_all_ranks(3, [&](int rank) {
    Buffer buffer = std::move(buffers[static_cast<std::size_t>(rank)]);
    Tensor x = make_host_tensor(DType::kFloat32, {200, 512});
    Tensor topk = make_host_tensor(DType::kInt64, {200, 1});
    for (int i = 0; i < 200; ++i) topk.view.as<std::int64_t>()[i] = 1;  // on rank 1
    const DispatchResult received =
        buffer.dispatch({.x = x.view, .topk_idx = topk.view, .num_experts = 3});
    buffer.combine({.x = received.recv_x.view, .handle = received.handle});
    if (rank == 0) {
      {
        const Buffer gone = std::move(buffer);
      }
      has_gone = true;
      return;
    }
  });
  set_trace_hook({});
  test::expect_success(outcomes);
}

TEST(Buffers, OfDifferentGroupsWorkOnDifferentThreadsAtOnce) {
  std::vector<Buffer> first = test::open_buffers(2);
  std::vector<Buffer> second = test::open_buffers(2);
  const auto outcomes = on_all_ranks(4, [&](int thread) {
    auto& buffers = thread < 2 ? first : second;
    for (int i = 0; i < 100; ++i) test::use_once(buffers[static_cast<std::size_t>(thread % 2)]);
  });
  test::expect_success(outcomes);
}

TEST(Buffers, OfTheSameGroupWorkOnDifferentThreadsAtOnce) {
  const std::vector<Group> groups = Group::of_threads(2);
  std::vector<Buffer> first = test::open_buffers(groups);
  std::vector<Buffer> second = test::open_buffers(groups);
  const auto outcomes = on_all_ranks(4, [&](int thread) {
    auto& buffers = thread < 2 ? first : second;
    for (int i = 0; i < 100; ++i) test::use_once(buffers[static_cast<std::size_t>(thread % 2)]);
  });
  test::expect_success(outcomes);
}

TEST(Buffers, OpenedAndClosedManyTimesLeakNeitherDescriptorsNorMappings) {
  const std::vector<Group> groups = Group::of_threads(2);
  const auto open_use_and_close = [&] {
    std::vector<Buffer> buffers = test::open_buffers(groups, {.num_workers = 2});
    test::expect_usable(buffers);
    close_all(buffers);
  };
  for (int i = 0; i < 5; ++i) open_use_and_close();
  const std::size_t descriptors = test::count_open_descriptors();
  const std::size_t mappings = test::count_mappings("");
  for (int i = 0; i < 100; ++i) open_use_and_close();
  EXPECT_EQ(test::count_open_descriptors(), descriptors);
  EXPECT_LE(test::count_mappings(""), mappings + 20);  // the heap may map a little more
}

TEST(Trace, ReportsTheStagesOfDispatchAndCombineInOrder) {
  std::vector<std::string> stages;
  set_trace_hook([&](const TraceEvent& event) {
    if (event.point == TracePoint::kBegin && event.operation != Operation::kOpen) {
      stages.push_back(std::string(operation_name(event.operation)) + " " +
                       stage_name(event.stage));
    }
  });
  std::vector<Buffer> buffers = test::open_buffers(1);
  test::use_once(buffers[0]);
  set_trace_hook({});
  EXPECT_EQ(stages,
            (std::vector<std::string>{"dispatch route", "dispatch exchange", "dispatch place",
                                      "dispatch send", "dispatch signal", "dispatch receive",
                                      "combine send_back", "combine exchange", "combine reduce"}));
}

}  // namespace
}  // namespace moelink
