// Wrong arguments: every one is named with its value, what it should be, and the rank.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "conformance/open_buffers.hpp"

namespace moelink {
namespace {

using test::SmallCall;

// Checks of arguments need no peer, so rank 1 alone makes the calls.
class ArgumentErrors : public ::testing::Test {
 protected:
  template <class Config>
  struct Case {
    std::function<void(Config&)> spoil;
    std::vector<std::string> words;
  };

  template <class Config>
  void expect_refused(const Config& good, const std::vector<Case<Config>>& cases,
                      const std::function<void(const Config&)>& call) {
    for (const Case<Config>& one : cases) {
      Config bad = good;
      one.spoil(bad);
      std::vector<std::string> words = one.words;
      words.emplace_back("rank 1");
      test::expect_failure(test::outcome_of([&] { call(bad); }), ErrorCode::kInvalidArgument,
                           words);
    }
    test::expect_usable(buffers_);
  }

  Buffer& buffer() { return buffers_[1]; }

  // A handle of each rank, made by a dispatch of SmallCall.
  std::vector<std::shared_ptr<const Routing>> dispatch_all(Layout layout = Layout::kCompact) {
    std::vector<std::shared_ptr<const Routing>> handles(2);
    test::expect_success(test::on_all_ranks(2, [&](int rank) {
      SmallCall small(2);
      small.config.layout = layout;
      const auto index = static_cast<std::size_t>(rank);
      handles[index] = buffers_[index].dispatch(small.config).handle;
    }));
    return handles;
  }

  std::vector<Buffer> buffers_ =
      test::open_buffers(2, {.hidden_bytes = 256, .max_num_experts = 64});
};

TensorView view(DType dtype, std::initializer_list<std::int64_t> shape) {
  alignas(64) static std::byte memory[1 << 16];
  return TensorView::contiguous(memory, dtype, shape);
}

TensorView strided(DType dtype, std::initializer_list<std::int64_t> shape) {
  TensorView result = view(dtype, shape);
  for (std::int64_t& stride : result.strides) stride *= 2;
  return result;
}

TEST_F(ArgumentErrors, OfDispatchNameThePayload) {
  const SmallCall small(2);
  using C = DispatchConfig;
  expect_refused<C>(
      small.config,
      {{[](C& c) { c.x = view(DType::kBFloat16, {320}); },
        {"x is bfloat16 [320]", "expected shape [any, any]"}},
       {[](C& c) { c.x = strided(DType::kBFloat16, {5, 64}); },
        {"x is bfloat16 [5, 64] with strides [128, 2]", "expected a contiguous tensor"}},
       {[](C& c) { c.x = view(DType::kBFloat16, {5, 60}); },
        {"x is bfloat16 [5, 60]", "a row has 120 bytes, expected a multiple of 16"}},
       {[](C& c) { c.x = view(DType::kBFloat16, {5, 0}); },
        {"a row has 0 bytes, expected a multiple of 16"}},
       {[](C& c) { c.x.data = static_cast<std::byte*>(c.x.data) + 2; },
        {"x starts at address", "expected a multiple of 16"}},
       {[](C& c) { c.x = view(DType::kFloat32, {5, 128}); },
        {"x is float32 [5, 128]", "a row has 512 bytes", "hidden_bytes=256"}},
       {[](C& c) { c.x.data = nullptr; }, {"x is bfloat16 [5, 64]", "null"}},
       {[](C& c) { c.x = view(DType::kBFloat16, {-5, 64}); }, {"x is bfloat16 [-5, 64]"}},
       {[](C& c) { c.scales = view(DType::kFloat32, {4, 1}); },
        {"scales is float32 [4, 1]", "expected shape [5, any]"}},
       {[](C& c) { c.scales = view(DType::kBFloat16, {5, 1}); },
        {"scales is bfloat16 [5, 1]", "expected dtype float32 or int32 or uint8"}}},
      [this](const C& c) { buffer().dispatch(c); });
}

TEST_F(ArgumentErrors, OfDispatchNameTheRouting) {
  const SmallCall small(2);
  using C = DispatchConfig;
  expect_refused<C>(
      small.config,
      {{[](C& c) { c.topk_idx = {}; }, {"topk_idx is missing", "is_token_in_rank"}},
       {[](C& c) { c.topk_idx = view(DType::kInt64, {4, 2}); },
        {"topk_idx is int64 [4, 2]", "expected shape [5, any]"}},
       {[](C& c) { c.topk_idx = view(DType::kFloat32, {5, 2}); },
        {"topk_idx is float32 [5, 2]", "expected dtype int64 or int32"}},
       {[](C& c) { c.topk_idx = strided(DType::kInt32, {5, 2}); },
        {"topk_idx is int32 [5, 2] with strides", "contiguous"}},
       {[](C& c) { c.topk_idx = view(DType::kInt64, {5, 33}); },
        {"topk_idx is int64 [5, 33]", "expected a top-k from 1 to 32"}},
       {[](C& c) { c.topk_idx = view(DType::kInt64, {5, 0}); },
        {"topk_idx is int64 [5, 0]", "expected a top-k from 1 to 32"}},
       {[](C& c) { c.topk_idx.data = nullptr; }, {"topk_idx is int64 [5, 2]", "null"}},
       {[](C& c) { c.topk_weights = view(DType::kFloat32, {5, 3}); },
        {"topk_weights is float32 [5, 3]", "expected shape [5, 2]"}},
       {[](C& c) { c.topk_weights = view(DType::kBFloat16, {5, 2}); },
        {"topk_weights is bfloat16 [5, 2]", "expected dtype float32"}},
       {[](C& c) { c.topk_weights = strided(DType::kFloat32, {5, 2}); },
        {"topk_weights is float32 [5, 2] with strides"}},
       {[](C& c) { c.num_experts = 0; }, {"num_experts is 0", "multiple of the 2 ranks"}},
       {[](C& c) { c.num_experts = -4; }, {"num_experts is -4", "multiple of the 2 ranks"}},
       {[](C& c) { c.num_experts = 7; }, {"num_experts is 7", "multiple of the 2 ranks"}},
       {[](C& c) { c.num_experts = 66; }, {"num_experts is 66", "max_num_experts=64"}},
       {[](C& c) { c.num_experts = 2; }, {"topk_idx[1, 0] is 2 on rank 1", "num_experts is 2"}}},
      [this](const C& c) { buffer().dispatch(c); });
}

TEST_F(ArgumentErrors, OfDispatchNameMaskStatisticsAndSizes) {
  const SmallCall small(2);
  using C = DispatchConfig;
  expect_refused<C>(
      small.config,
      {{[](C& c) { c.is_token_in_rank = view(DType::kBool, {5, 3}); },
        {"is_token_in_rank is bool [5, 3]", "expected shape [5, 2]"}},
       {[](C& c) { c.is_token_in_rank = view(DType::kInt32, {5, 2}); },
        {"is_token_in_rank is int32 [5, 2]", "expected dtype bool or uint8"}},
       {[](C& c) {
          c.is_token_in_rank = view(DType::kBool, {5, 2});
          c.layout = Layout::kExpertMajor;
        },
        {"is_token_in_rank needs the compact layout", "expert_major"}},
       {[](C& c) {
          c.is_token_in_rank = view(DType::kBool, {5, 2});
          c.topk_idx = {};
        },
        {"topk_weights were given without topk_idx"}},
       {[](C& c) {
          c.is_token_in_rank = view(DType::kBool, {5, 2});
          c.topk_idx = {};
          c.topk_weights.reset();
          c.recv_stats = view(DType::kInt32, {2});
        },
        {"recv_stats was given without topk_idx"}},
       {[](C& c) {
          c.is_token_in_rank = view(DType::kBool, {5, 2});
          c.topk_idx = {};
          c.topk_weights.reset();
          c.num_experts = 100'000;
        },
        {"num_experts is 100000", "max_num_experts=64"}},
       {[](C& c) { c.recv_stats = view(DType::kInt32, {3}); },
        {"recv_stats is int32 [3]", "expected shape [2]"}},
       {[](C& c) { c.recv_stats = view(DType::kInt64, {2}); },
        {"recv_stats is int64 [2]", "expected dtype int32"}},
       {[](C& c) { c.expert_alignment = 0; }, {"expert_alignment is 0", "expected 1 or more"}},
       {[](C& c) { c.num_worst_tokens = -1; }, {"num_worst_tokens is -1", "expected 0 or more"}}},
      [this](const C& c) { buffer().dispatch(c); });
}

TEST_F(ArgumentErrors, AreAllReportedAtOnce) {
  SmallCall small(2);
  small.config.x = view(DType::kBFloat16, {5, 60});
  small.config.num_experts = 7;
  small.config.expert_alignment = -1;
  const auto outcome = test::outcome_of([&] { buffer().dispatch(small.config); });
  test::expect_failure(
      outcome, ErrorCode::kInvalidArgument,
      {"dispatch (rank 1): ", "120 bytes", "num_experts is 7", "expert_alignment is -1"});
}

TEST_F(ArgumentErrors, OfCachedDispatchNameHandleAndTokens) {
  const auto handles = dispatch_all();
  const SmallCall small(2);
  const CachedDispatchConfig good{.x = small.x.view, .handle = handles[1]};
  std::vector<Buffer> others = test::open_buffers(1);
  const SmallCall single(1);
  const auto foreign = others[0].dispatch(single.config).handle;
  using C = CachedDispatchConfig;
  expect_refused<C>(good,
                    {{[](C& c) { c.handle = nullptr; }, {"handle is missing"}},
                     {[&](C& c) { c.handle = foreign; }, {"handle was made by another buffer"}},
                     {[&](C& c) { c.handle = handles[0]; }, {"handle was made by another buffer"}},
                     {[](C& c) { c.x = view(DType::kBFloat16, {6, 64}); },
                      {"x is bfloat16 [6, 64]", "the handle was made for 5 tokens"}},
                     {[](C& c) { c.x = view(DType::kBFloat16, {5, 60}); }, {"a row has 120 bytes"}},
                     {[](C& c) { c.topk_weights = view(DType::kFloat32, {5, 3}); },
                      {"topk_weights is float32 [5, 3]", "expected shape [5, 2]"}}},
                    [this](const C& c) { buffer().dispatch(c); });
}

TEST_F(ArgumentErrors, OfCombineNameEveryTensor) {
  const auto handle = dispatch_all()[1];
  const std::int64_t rows = handle->num_recv_rows();
  const std::string expected_rows = "expected " + std::to_string(rows) + " rows";
  const CombineConfig good{.x = view(DType::kBFloat16, {rows, 64}), .handle = handle};
  using C = CombineConfig;
  expect_refused<C>(
      good,
      {{[](C& c) { c.handle = nullptr; }, {"handle is missing"}},
       {[&](C& c) { c.x = view(DType::kBFloat16, {rows + 1, 64}); }, {"x is", expected_rows}},
       {[&](C& c) { c.x = view(DType::kInt8, {rows, 64}); },
        {"x is int8", "expected dtype bfloat16 or float16 or float32"}},
       {[&](C& c) { c.x = view(DType::kFloat16, {rows, 4}); }, {"a row has 8 bytes"}},
       {[&](C& c) { c.topk_weights = view(DType::kFloat32, {rows, 3}); },
        {"topk_weights is float32", "expected shape [" + std::to_string(rows) + ", 2]"}},
       {[](C& c) { c.bias_0 = view(DType::kBFloat16, {4, 64}); },
        {"bias_0 is bfloat16 [4, 64]", "expected shape [5, 64]"}},
       {[](C& c) { c.bias_1 = view(DType::kFloat16, {5, 64}); },
        {"bias_1 is float16 [5, 64]", "expected dtype bfloat16"}},
       {[](C& c) { c.out = view(DType::kBFloat16, {5, 32}); },
        {"out is bfloat16 [5, 32]", "expected shape [5, 64]"}},
       {[](C& c) { c.out = strided(DType::kBFloat16, {5, 64}); },
        {"out is bfloat16 [5, 64] with strides"}}},
      [this](const C& c) { buffer().combine(c); });
}

TEST_F(ArgumentErrors, OfExpertMajorCombineAskForOneWeightPerRow) {
  const auto handle = dispatch_all(Layout::kExpertMajor)[1];
  const std::int64_t rows = handle->num_recv_rows();
  const CombineConfig bad{.x = view(DType::kBFloat16, {rows, 64}),
                          .topk_weights = view(DType::kFloat32, {rows, 2}),
                          .handle = handle};
  test::expect_failure(test::outcome_of([&] { buffer().combine(bad); }),
                       ErrorCode::kInvalidArgument,
                       {"topk_weights is", "expected shape [" + std::to_string(rows) + "]"});
}

TEST_F(ArgumentErrors, OfQueryLayoutNameTheArgument) {
  const SmallCall small(2);
  const LayoutConfig good{.topk_idx = small.topk.view, .num_experts = 4};
  using C = LayoutConfig;
  expect_refused<C>(good,
                    {{[](C& c) { c.num_experts = 3; }, {"num_experts is 3"}},
                     {[](C& c) { c.topk_idx = view(DType::kInt8, {5, 2}); },
                      {"topk_idx is int8 [5, 2]", "expected dtype int64 or int32"}},
                     {[](C& c) { c.topk_idx = {}; }, {"topk_idx is"}},
                     {[](C& c) { c.num_experts = 2; }, {"topk_idx[1, 0] is 2 on rank 1"}}},
                    [this](const C& c) { buffer().query_layout(c); });
}

TEST(BufferConfigErrors, NameTheFieldItsValueAndTheLimit) {
  const Group group = Group::of_threads(1).front();
  const auto error_of = [&](const BufferConfig& config) {
    return test::outcome_of([&] { Buffer(group, config); });
  };
  constexpr ErrorCode kCode = ErrorCode::kInvalidArgument;
  test::expect_failure(error_of({.max_num_experts = 0}), kCode,
                       {"Buffer (rank 0)", "max_num_experts is 0", "the number of ranks, 1"});
  test::expect_failure(error_of({.num_workers = -2}), kCode, {"num_workers is -2"});
  test::expect_failure(error_of({.timeout = std::chrono::milliseconds(-1)}), kCode,
                       {"timeout is -1 ms"});
  test::expect_failure(error_of({.max_symmetric_bytes = 1000}), kCode,
                       {"max_symmetric_bytes=1000 is too small", "the control area alone needs"});
}

TEST(TensorViewErrors, MoreThanFourDimensionsAreRefused) {
  test::expect_failure(
      test::outcome_of([] { TensorView::contiguous(nullptr, DType::kUInt8, {1, 1, 1, 1, 1}); }),
      ErrorCode::kInvalidArgument, {"5 dimensions", "at most 4"});
}

}  // namespace
}  // namespace moelink
