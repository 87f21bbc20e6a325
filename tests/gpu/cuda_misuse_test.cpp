// Wrong calls on CUDA buffers: all ranks throw alike, and the buffers stay usable.
#include "conformance/small_low_latency.hpp"
#include "gpu/cuda_process_ranks.hpp"

namespace moelink::test {
namespace {

constexpr Rank kOddRank(1);  // makes the other call

using CudaMisuseByProcesses = CudaProcessTest;

Outcome outcome_of_dispatch(BufferRank& rank, const DispatchArguments& made) {
  return outcome_of([&] { rank.buffer.dispatch(made.config); });
}

std::string opening(const char* call, const BufferRank& rank) {
  return fmt::format("{} (rank {})", call, rank.rank());
}

struct Difference {
  std::function<void(BufferCase&)> change;  // of the odd rank's call
  const char* text;
};

TEST_F(CudaMisuseByProcesses, CallsThatDifferAreRefusedByAllRanksWithBothValues) {
  const std::vector<Difference> differences = {
      {[](auto& c) { c.num_channels = 128; }, "row bytes of x is 256 on rank 1 but 128 on rank 0"},
      {[](auto& c) { c.dtype = DType::kFloat16; },
       "dtype of x is float16 on rank 1 but bfloat16 on rank 0"},
      {[](auto& c) { c.scales = ScaleKind::kFloat32; },
       "dtype of scales is float32 on rank 1 but none on rank 0; row bytes of scales is 4 on rank "
       "1 but 0 on rank 0"},
      {[](auto& c) { c.num_topk = 3; }, "top-k is 3 on rank 1 but 4 on rank 0"},
      {[](auto& c) { c.index_dtype = DType::kInt32; },
       "dtype of topk_idx is int32 on rank 1 but int64 on rank 0"},
      {[](auto& c) { c.weights = WeightKind::kAbsent; },
       "topk_weights given is 0 on rank 1 but 1 on rank 0"},
      {[](auto& c) { c.experts_per_rank = 100; }, "num_experts is 300 on rank 1 but 9 on rank 0"},
      {[](auto& c) { c.layout = Layout::kExpertMajor; },
       "layout is expert_major on rank 1 but compact on rank 0"},
      {[](auto& c) { c.alignment = 16; }, "expert_alignment is 16 on rank 1 but 1 on rank 0"}};
  run([&](Bootstrap& bootstrap) {
    BufferRank rank = open_rank(bootstrap);
    for (const Difference& difference : differences) {
      BufferCase one = small_case();
      if (bootstrap.rank() == kOddRank) difference.change(one);
      require_failure(outcome_of_dispatch(rank, rank.arguments(one, make_problem(one))),
                      ErrorCode::kInvalidArgument, {opening("dispatch", rank), difference.text});
      rank.round_trip(small_case());
    }
    rank.buffer.close();
  });
}

TEST_F(CudaMisuseByProcesses, AnotherOperationIsRefusedByAllRanksWithBothNames) {
  run([](Bootstrap& bootstrap) {
    BufferRank rank = open_rank(bootstrap);
    const DispatchArguments made = rank.arguments(small_case(), make_problem(small_case()));
    const Outcome outcome = bootstrap.rank() == kOddRank
                                ? outcome_of([&] { rank.buffer.barrier(); })
                                : outcome_of_dispatch(rank, made);
    require_failure(outcome, ErrorCode::kInvalidArgument,
                    {"operation is barrier on rank 1 but dispatch on rank 0"});
    rank.round_trip(small_case());
    rank.buffer.close();
  });
}

TEST_F(CudaMisuseByProcesses, AnExpertThatDoesNotExistIsNamedByAllRanks) {
  run([](Bootstrap& bootstrap) {
    BufferRank rank = open_rank(bootstrap);
    for (const std::int64_t id : {std::int64_t{9}, std::int64_t{-2}, std::int64_t{1} << 40}) {
      Problem problem = make_problem(small_case());
      problem.sent[kOddRank.index()].ids[3 * 4 + 2] = id;
      problem.sent[kOddRank.index()].ids[7 * 4] = 1000;  // the first is named
      require_failure(
          outcome_of_dispatch(rank, rank.arguments(small_case(), problem)),
          ErrorCode::kInvalidArgument,
          {fmt::format("topk_idx[3, 2] is {} on rank 1: expected -1 or 0 .. num_experts-1, "
                       "num_experts is 9",
                       id)});
      rank.round_trip(small_case());
    }
    rank.buffer.close();
  });
}

// The host does not wait for the counts, so the kernels find it.
TEST_F(CudaMisuseByProcesses, TooFewWorstTokensAreToldByHandleAndNextCallAtAllRanks) {
  run([](Bootstrap& bootstrap) {
    BufferRank rank = open_rank(bootstrap);
    DispatchArguments made = rank.arguments(small_case(), make_problem(small_case()));
    made.config.num_worst_tokens = bootstrap.rank() == kOddRank ? 1 : 100;
    const DispatchResult received = rank.buffer.dispatch(made.config);
    const std::vector<std::string> words = {opening("dispatch", rank),
                                            "num_worst_tokens is too small"};
    require_failure(outcome_of([&] { received.handle->num_recv_tokens(); }),
                    ErrorCode::kInvalidArgument, words);
    require_failure(outcome_of([&] { rank.buffer.barrier(); }), ErrorCode::kInvalidArgument, words);
    require_failure(outcome_of([&] { rank.buffer.barrier(); }), ErrorCode::kPeerLost,
                    {"barrier (rank ", "broken by an earlier failure", "num_worst_tokens"});
    rank.buffer.close();
    require_gpu_works();
  });
}

// About 5 MB for the last rank.
BufferCase large_case() {
  BufferCase one = small_case();
  one.num_tokens = {400};
  one.pattern = Pattern::kAllToOne;
  one.dtype = DType::kFloat32;
  one.num_channels = 1024;
  return one;
}

constexpr BufferConfig kLittleMemory{.max_symmetric_bytes = std::size_t{8} << 20};

TEST_F(CudaMisuseByProcesses, TooLittleMemoryIsNamedByAllRanksUntilTensorsAreReleased) {
  run([](Bootstrap& bootstrap) {
    BufferRank rank = open_rank(bootstrap, kLittleMemory);
    const DispatchArguments made = rank.arguments(large_case(), make_problem(large_case()));
    for (int round = 0; round < 2; ++round) {
      const DispatchResult held = rank.dispatch(large_case());
      require_failure(outcome_of_dispatch(rank, made), ErrorCode::kInvalidArgument,
                      {opening("dispatch", rank), "rank 2 needs ",
                       "bytes of symmetric memory for its 1200 tokens, its largest free place has ",
                       "raise max_symmetric_bytes or release receive tensors"});
      rank.round_trip(small_case());
    }
    rank.buffer.close();
  });
}

TEST_F(CudaMisuseByProcesses, TooLittleMemoryForTheWorstCaseIsRefusedBeforeAnythingIsSent) {
  run([](Bootstrap& bootstrap) {
    BufferRank rank = open_rank(bootstrap, kLittleMemory);
    DispatchArguments made = rank.arguments(small_case(), make_problem(small_case()));
    made.config.num_worst_tokens = 1'000'000;
    if (bootstrap.rank() == kOddRank) {  // the others do not even know
      require_failure(outcome_of_dispatch(rank, made), ErrorCode::kInvalidArgument,
                      {opening("dispatch", rank), "num_worst_tokens=1000000 needs ",
                       "the largest free place has ", "raise max_symmetric_bytes"});
    }
    rank.round_trip(small_case());
    rank.buffer.close();
  });
}

struct WrongTensor {
  std::function<void(DispatchConfig&)> change;
  std::string text;
};

// Host memory that CUDA does not know.
TensorView on_heap(const TensorView& like) {
  alignas(64) static std::byte memory[1 << 16];
  TensorView view = like;
  view.data = memory;
  return view;
}

TensorView shifted(const TensorView& tensor, std::ptrdiff_t bytes) {
  TensorView view = tensor;
  view.data = tensor.as<std::byte>() + bytes;
  return view;
}

std::vector<WrongTensor> wrong_tensors() {
  const std::string on_host = " lies in host memory, expected memory of cuda:0";
  return {{[](auto& c) { c.x = on_heap(c.x); }, "x" + on_host},
          {[](auto& c) { c.topk_idx = on_heap(c.topk_idx); }, "topk_idx" + on_host},
          {[](auto& c) { c.topk_weights = on_heap(*c.topk_weights); }, "topk_weights" + on_host},
          {[](auto& c) { c.scales = on_heap(*c.scales); }, "scales" + on_host},
          {[](auto& c) { c.x = shifted(c.x, 8); }, "expected a multiple of 16"},
          {[](auto& c) { c.topk_idx = shifted(c.topk_idx, 4); }, "expected a multiple of 8 bytes"},
          {[](auto& c) { c.topk_weights = shifted(*c.topk_weights, 2); },
           "expected a multiple of 4 bytes"},
          {[](auto& c) { c.scales = shifted(*c.scales, 1); }, "expected a multiple of 4 bytes"}};
}

TEST_F(CudaMisuseByProcesses, TensorsOfAnotherPlaceOrAlignmentAreRefusedBeforeAnythingIsSent) {
  run([](Bootstrap& bootstrap) {
    BufferRank rank = open_rank(bootstrap);
    BufferCase one = small_case();
    one.scales = ScaleKind::kFloat32;
    const DispatchArguments made = rank.arguments(one, make_problem(one));
    for (const WrongTensor& wrong : wrong_tensors()) {
      DispatchConfig config = made.config;
      wrong.change(config);
      if (bootstrap.rank() == kOddRank) {
        require_failure(outcome_of([&] { rank.buffer.dispatch(config); }),
                        ErrorCode::kInvalidArgument, {opening("dispatch", rank), wrong.text});
      }
      rank.round_trip(small_case());
    }
    rank.buffer.close();
  });
}

TEST_F(CudaMisuseByProcesses, HostTensorsOfOtherCallsAreNamedTogether) {
  run([](Bootstrap& bootstrap) {
    BufferRank rank = open_rank(bootstrap);
    const Problem problem = make_problem(small_case());
    const DispatchResult received = rank.dispatch(small_case());
    const CombineArguments made = rank.arguments(problem, received, {.num_biases = 1});
    CombineConfig combine = made.config;
    combine.x = on_heap(combine.x);
    combine.bias_0 = on_heap(*combine.bias_0);
    require_failure(outcome_of([&] { rank.buffer.combine(combine); }), ErrorCode::kInvalidArgument,
                    {opening("combine", rank), "x lies in host memory, expected memory of cuda:0",
                     "; bias_0 lies in host memory, expected memory of cuda:0"});
    const DispatchArguments sent = rank.arguments(small_case(), problem);
    const LayoutConfig layout{.topk_idx = on_heap(sent.config.topk_idx), .num_experts = 9};
    require_failure(outcome_of([&] { rank.buffer.query_layout(layout); }),
                    ErrorCode::kInvalidArgument,
                    {opening("query_layout", rank), "topk_idx lies in host memory"});
    rank.combine(small_case(), received, {});
    rank.buffer.close();
  });
}

void open_on(const Device& device, Bootstrap& bootstrap) {
  Buffer(group_over(bootstrap), {.device = device,
                                 .max_symmetric_bytes = std::size_t{8} << 20,
                                 .timeout = test_timeout(std::chrono::seconds(10))});
}

TEST_F(CudaMisuseByProcesses, ADeviceThatDoesNotExistIsNamedAndTheGroupStaysUsable) {
  run([](Bootstrap& bootstrap) {
    for (const int index : {-1, 1000}) {
      const Device device{DeviceKind::kCuda, index};
      require_failure(outcome_of([&] { open_on(device, bootstrap); }), ErrorCode::kInvalidArgument,
                      {fmt::format("Buffer (rank {}): device is cuda:{}, expected 0 .. ",
                                   bootstrap.rank().value(), index),
                       "this process sees "});
    }
    open_rank(bootstrap).round_trip(small_case());
    bootstrap.barrier("end of test", soon());
  });
}

TEST_F(CudaMisuseByProcesses, ADeviceThatDoesNotExistAtOneRankEndsTheOpeningOfAll) {
  run([](Bootstrap& bootstrap) {
    const bool odd = bootstrap.rank() == kOddRank;
    const Device device{DeviceKind::kCuda, odd ? 1000 : 0};
    const Outcome outcome = outcome_of([&] { open_on(device, bootstrap); });
    if (odd) {
      return require_failure(outcome, ErrorCode::kInvalidArgument, {"device is cuda:1000"});
    }
    require_failure(outcome, ErrorCode::kInvalidArgument,
                    {"device is cuda:1000 on rank 1", "expected 0 .. "});
  });
}

TEST_F(CudaMisuseByProcesses, ABufferOfAnotherKindOfDeviceIsRefusedByAllRanks) {
  run([](Bootstrap& bootstrap) {
    const bool odd = bootstrap.rank() == kOddRank;
    const Device device{odd ? DeviceKind::kCpu : DeviceKind::kCuda, 0};
    require_failure(outcome_of([&] { open_on(device, bootstrap); }), ErrorCode::kInvalidArgument,
                    {fmt::format("Buffer (rank {}): the ranks' configurations differ",
                                 bootstrap.rank().value()),
                     odd ? "device is cpu on rank 1 but not on rank 0"
                         : fmt::format("device is cuda on rank {} but not on rank 1",
                                       bootstrap.rank().value())});
    open_rank(bootstrap).round_trip(small_case());
    bootstrap.barrier("end of test", soon());
  });
}

}  // namespace
}  // namespace moelink::test
