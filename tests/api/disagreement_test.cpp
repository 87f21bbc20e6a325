// Calls that differ between ranks: all ranks throw alike, and the buffers stay usable.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "conformance/open_buffers.hpp"

namespace moelink {
namespace {

using test::on_all_ranks;
using test::Outcome;
using test::SmallCall;

constexpr int kNumRanks = 3;
constexpr int kOddRank = 1;  // makes the other call

class Disagreement : public ::testing::Test {
 protected:
  Buffer& buffer(int rank) { return buffers_[static_cast<std::size_t>(rank)]; }

  // All ranks dispatch; rank 1 with the changed config.
  std::vector<Outcome> dispatch_with(const std::function<void(DispatchConfig&)>& change) {
    return on_all_ranks(kNumRanks, [&](int rank) {
      SmallCall small(kNumRanks);
      if (rank == kOddRank) change(small.config);
      buffer(rank).dispatch(small.config);
    });
  }

  void expect_all_refused(const std::vector<Outcome>& outcomes, const char* call,
                          const std::string& difference) {
    for (std::size_t rank = 0; rank < outcomes.size(); ++rank) {
      test::expect_failure(
          outcomes[rank], ErrorCode::kInvalidArgument,
          {std::string(call) + " (rank " + std::to_string(rank) + ")", difference});
    }
    test::expect_usable(buffers_);
  }

  std::vector<Buffer> buffers_ = test::open_buffers(kNumRanks);
};

// Lives as long as the process.
TensorView view(DType dtype, std::initializer_list<std::int64_t> shape) {
  alignas(64) static std::byte memory[1 << 16];
  return TensorView::contiguous(memory, dtype, shape);
}

TEST_F(Disagreement, InAnyArgumentOfDispatchIsNamedWithBothValues) {
  struct Case {
    std::function<void(DispatchConfig&)> change;
    const char* difference;
  };
  const std::vector<Case> cases = {
      {[](auto& c) { c.x = view(DType::kBFloat16, {5, 128}); },
       "row bytes of x is 256 on rank 1 but 128 on rank 0"},
      {[](auto& c) { c.x = view(DType::kFloat16, {5, 64}); },
       "dtype of x is float16 on rank 1 but bfloat16 on rank 0"},
      {[](auto& c) { c.scales = view(DType::kInt32, {5, 3}); },
       "dtype of scales is int32 on rank 1 but none on rank 0; row bytes of scales is 12 on rank 1 "
       "but 0 on rank 0"},
      {[](auto& c) {
         c.topk_idx = view(DType::kInt64, {5, 3});
         c.topk_weights = view(DType::kFloat32, {5, 3});
       },
       "top-k is 3 on rank 1 but 2 on rank 0"},
      {[](auto& c) { c.topk_idx = view(DType::kInt32, {5, 2}); },
       "dtype of topk_idx is int32 on rank 1 but int64 on rank 0"},
      {[](auto& c) { c.topk_weights.reset(); },
       "topk_weights given is 0 on rank 1 but 1 on rank 0"},
      {[](auto& c) { c.num_experts = 300; }, "num_experts is 300 on rank 1 but 6 on rank 0"},
      {[](auto& c) { c.layout = Layout::kExpertMajor; },
       "layout is expert_major on rank 1 but compact on rank 0"},
      {[](auto& c) { c.expert_alignment = 16; },
       "expert_alignment is 16 on rank 1 but 1 on rank 0"},
      {[](auto& c) { c.num_worst_tokens = 100; },
       "num_worst_tokens given is 1 on rank 1 but 0 on rank 0"}};
  for (const Case& one : cases) {
    SCOPED_TRACE(one.difference);
    expect_all_refused(dispatch_with(one.change), "dispatch", one.difference);
  }
}

TEST_F(Disagreement, InTheOperationNamesBoth) {
  const auto outcomes = on_all_ranks(kNumRanks, [&](int rank) {
    if (rank == kOddRank) return buffer(rank).barrier();
    const SmallCall small(kNumRanks);
    buffer(rank).dispatch(small.config);
  });
  for (const Outcome& outcome : outcomes) {
    test::expect_failure(outcome, ErrorCode::kInvalidArgument,
                         {"operation is barrier on rank 1 but dispatch on rank 0"});
  }
  test::expect_usable(buffers_);
}

TEST_F(Disagreement, InTheHandleNamesTheDispatchesThatMadeThem) {
  std::vector<DispatchResult> received(2 * kNumRanks);
  test::expect_success(on_all_ranks(kNumRanks, [&](int rank) {
    const SmallCall small(kNumRanks);
    for (int i = 0; i < 2; ++i) {
      received[static_cast<std::size_t>(rank * 2 + i)] = buffer(rank).dispatch(small.config);
    }
  }));
  const auto combine = on_all_ranks(kNumRanks, [&](int rank) {
    const DispatchResult& own = received[static_cast<std::size_t>(rank * 2 + rank % 2)];
    buffer(rank).combine({.x = own.recv_x.view, .handle = own.handle});
  });
  expect_all_refused(combine, "combine",
                     "handle (number of its dispatch) is 2 on rank 1 but 1 on rank 0");
  const auto cached = on_all_ranks(kNumRanks, [&](int rank) {
    const SmallCall small(kNumRanks);
    const DispatchResult& own = received[static_cast<std::size_t>(rank * 2 + rank % 2)];
    buffer(rank).dispatch({.x = small.x.view, .handle = own.handle});
  });
  expect_all_refused(cached, "cached_dispatch",
                     "handle (number of its dispatch) is 2 on rank 1 but 1 on rank 0");
}

TEST_F(Disagreement, OfSeveralRanksNamesThemAll) {
  const auto outcomes = on_all_ranks(kNumRanks, [&](int rank) {
    SmallCall small(kNumRanks);
    small.config.expert_alignment = 1 + rank;
    buffer(rank).dispatch(small.config);
  });
  for (const Outcome& outcome : outcomes) {
    test::expect_failure(outcome, ErrorCode::kInvalidArgument,
                         {"expert_alignment is 2 on rank 1", "expert_alignment is 3 on rank 2"});
  }
}

TEST_F(Disagreement, FoundByAnAsynchronousCallArrivesWithItsEvent) {
  const auto outcomes = on_all_ranks(kNumRanks, [&](int rank) {
    SmallCall small(kNumRanks);
    small.config.stream.completion = Completion::kAsync;
    small.config.num_worst_tokens = 100;
    if (rank == kOddRank) small.config.expert_alignment = 2;
    const DispatchResult result = buffer(rank).dispatch(small.config);
    result.event.wait();
  });
  expect_all_refused(outcomes, "dispatch", "expert_alignment is 2 on rank 1 but 1 on rank 0");
}

TEST_F(Disagreement, WorstCaseSizesThatAreTooSmallSayHowManyRowsAreNeeded) {
  const auto outcomes = on_all_ranks(kNumRanks, [&](int rank) {
    SmallCall small(kNumRanks);
    for (int i = 0; i < 10; ++i) small.topk.view.as<std::int64_t>()[i] = 2;  // all to rank 1
    small.config.num_worst_tokens = rank == kOddRank ? 14 : 15;
    buffer(rank).dispatch(small.config);
  });
  expect_all_refused(outcomes, "dispatch",
                     "num_worst_tokens=14 of rank 1 is too small, 15 rows are needed");
}

TEST(Capacity, ThatIsTooSmallNamesTheRankItsNeedAndTheRemedy) {
  std::vector<Buffer> buffers = test::open_buffers(2, {.max_symmetric_bytes = 200'000});
  Tensor x = make_host_tensor(DType::kFloat32, {1000, 64});
  Tensor topk = make_host_tensor(DType::kInt64, {1000, 1});
  for (int i = 0; i < 1000; ++i) topk.view.as<std::int64_t>()[i] = 3;  // on rank 1
  const auto outcomes = on_all_ranks(2, [&](int rank) {
    buffers[static_cast<std::size_t>(rank)].dispatch(
        {.x = x.view, .topk_idx = topk.view, .num_experts = 4});
  });
  for (const Outcome& outcome : outcomes) {
    test::expect_failure(outcome, ErrorCode::kInvalidArgument,
                         {"rank 1 needs ", "bytes of symmetric memory for its 2000 tokens",
                          "raise max_symmetric_bytes"});
  }
  test::expect_usable(buffers);
}

TEST(Capacity, ThatIsTooSmallForTheWorstCaseIsRefusedBeforeAnythingIsSent) {
  std::vector<Buffer> buffers = test::open_buffers(2, {.max_symmetric_bytes = 200'000});
  SmallCall small(2);
  small.config.num_worst_tokens = 100'000;
  test::expect_failure(
      test::outcome_of([&] { buffers[0].dispatch(small.config); }), ErrorCode::kInvalidArgument,
      {"dispatch (rank 0)", "num_worst_tokens=100000 needs", "raise max_symmetric_bytes"});
  test::expect_usable(buffers);
}

TEST(Capacity, IsAvailableAgainOnceTensorsAreReleased) {
  std::vector<Buffer> buffers = test::open_buffers(1, {.max_symmetric_bytes = 400'000});
  Tensor held = buffers[0].empty(DType::kUInt8, {200'000});
  test::expect_failure(test::outcome_of([&] { buffers[0].empty(DType::kUInt8, {200'000}); }),
                       ErrorCode::kInvalidArgument, {"200000", "bytes"});
  held = Tensor{};
  EXPECT_NO_THROW(buffers[0].empty(DType::kUInt8, {200'000}));
}

TEST(BufferConfigs, ThatDifferBetweenRanksAreRefusedByAllAndTheGroupStaysUsable) {
  const std::vector<Group> groups = Group::of_threads(3);
  const auto outcomes = on_all_ranks(3, [&](int rank) {
    const BufferConfig config{.max_num_experts = rank == 1 ? 64 : 128};
    Buffer(groups[static_cast<std::size_t>(rank)], config);
  });
  for (const Outcome& outcome : outcomes) {
    test::expect_failure(outcome, ErrorCode::kInvalidArgument,
                         {"max_num_experts is 64 on rank 1 but 128 on rank 0"});
  }
  std::vector<Buffer> buffers = test::open_buffers(groups);
  test::expect_usable(buffers);
}

}  // namespace
}  // namespace moelink
