// reduce_row: the same bits as a scalar sum in the documented order, on every SIMD target.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "backend/cpu/simd/simd.hpp"
#include "backend/simd_reference.hpp"

namespace moelink::simd {
namespace {

namespace ref = simd_reference;

constexpr std::uint8_t kUntouched = 0xa5;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Rows aligned to cache lines.
struct Row {
  explicit Row(std::size_t bytes) : lines(bytes / 64 + 2) {
    std::memset(lines.data(), kUntouched, lines.size() * sizeof(Line));
  }
  void* data() { return lines.data(); }
  const std::uint8_t* bytes() const { return lines.data()->bytes; }

  struct alignas(64) Line {
    std::uint8_t bytes[64];
  };
  std::vector<Line> lines;
};

// A job together with the rows it points to.
struct Problem {
  DType dtype;
  std::size_t num_channels;
  std::vector<Row> rows;
  std::vector<std::uint32_t> closes;
  std::vector<Row> biases;

  std::size_t row_bytes() const { return num_channels * dtype_size(dtype); }

  Row solve(StorePolicy policy) {
    std::vector<Addend> addends;
    for (std::size_t i = 0; i < rows.size(); ++i) addends.push_back({rows[i].data(), closes[i]});
    Row out(row_bytes());
    ReduceJob job{dtype, num_channels, addends, nullptr, nullptr, out.data(), policy};
    if (!biases.empty()) job.bias_0 = biases[0].data();
    if (biases.size() > 1) job.bias_1 = biases[1].data();
    reduce_row(job);
    streaming_fence();
    return out;
  }

  float bias(std::size_t i, std::size_t channel) {
    return i < biases.size() ? ref::load(biases[i].data(), dtype, channel) : 0.0f;
  }

  float expected_channel(std::size_t channel) {
    const std::uint32_t deepest =
        closes.empty() ? 0 : *std::max_element(closes.begin(), closes.end());
    std::vector<float> sums(deepest + 1, 0.0f);
    sums[0] = bias(0, channel) + bias(1, channel);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      sums[deepest] += ref::load(rows[i].data(), dtype, channel);
      for (std::uint32_t level = deepest; level > deepest - closes[i]; --level) {
        sums[level - 1] += ref::round_to(dtype, sums[level]);
        sums[level] = 0;
      }
    }
    return sums[0];
  }

  Row expected() {
    Row out(row_bytes());
    for (std::size_t channel = 0; channel < num_channels; ++channel) {
      ref::store(out.data(), dtype, channel, expected_channel(channel));
    }
    return out;
  }
};

float random_value(std::mt19937& random) {
  static constexpr float kSpecial[] = {0.0f,  -0.0f,  kNaN,   kInfinity, -kInfinity, 65504.0f,
                                       3e38f, -3e38f, 1e-40f, 6e-8f,     -1e-5f,     1.00390625f};
  if (random() % 16 == 0) return kSpecial[random() % std::size(kSpecial)];
  const auto exponent = static_cast<int>(random() % 12) - 6;
  return std::ldexp(static_cast<float>(static_cast<int>(random() % 4096) - 2048), exponent - 8);
}

Row random_row(const Problem& problem, std::mt19937& random) {
  Row row(problem.row_bytes());
  for (std::size_t i = 0; i < problem.num_channels; ++i) {
    ref::store(row.data(), problem.dtype, i, random_value(random));
  }
  return row;
}

Problem make_problem(DType dtype, std::size_t num_channels, std::vector<std::uint32_t> closes) {
  Problem problem{dtype, num_channels, {}, std::move(closes), {}};
  std::mt19937 random(static_cast<std::uint32_t>(num_channels + problem.closes.size()));
  for (std::size_t i = 0; i < problem.closes.size(); ++i) {
    problem.rows.push_back(random_row(problem, random));
  }
  for (std::size_t i = 0; i < random() % 3; ++i) {
    problem.biases.push_back(random_row(problem, random));
  }
  return problem;
}

void expect_solved(Problem problem) {
  const Row expected = problem.expected();
  ref::for_each_target([&](const std::string& target) {
    for (const StorePolicy policy : {StorePolicy::kCached, StorePolicy::kStreaming}) {
      const Row out = problem.solve(policy);
      EXPECT_EQ(std::memcmp(out.bytes(), expected.bytes(), out.lines.size() * 64), 0)
          << target << ", " << dtype_name(problem.dtype) << ", " << problem.num_channels
          << " channels, " << problem.closes.size() << " addends";
    }
  });
}

class SimdReduce : public testing::TestWithParam<DType> {};

TEST_P(SimdReduce, EqualsScalarSumForAnyNumberOfAddends) {
  for (std::size_t count = 0; count <= 17; ++count) {
    expect_solved(make_problem(GetParam(), 384, std::vector<std::uint32_t>(count, 0)));
  }
}

TEST_P(SimdReduce, EqualsScalarSumForOddNumbersOfChannels) {
  for (const std::size_t num_channels : {0u, 1u, 2u, 7u, 15u, 31u, 33u, 65u, 129u, 200u, 1031u}) {
    expect_solved(make_problem(GetParam(), num_channels, {0, 0, 0}));
    expect_solved(make_problem(GetParam(), num_channels, {0, 1, 0, 2}));
  }
}

TEST_P(SimdReduce, RoundsEveryRankWhenItCloses) {
  expect_solved(make_problem(GetParam(), 416, {1}));
  expect_solved(make_problem(GetParam(), 416, {0, 0, 1}));
  expect_solved(make_problem(GetParam(), 416, {1, 1, 1, 1}));
  expect_solved(make_problem(GetParam(), 416, {0, 1, 1, 0, 0, 1}));
}

TEST_P(SimdReduce, RoundsEveryNodeWhenItCloses) {
  expect_solved(make_problem(GetParam(), 416, {2}));
  expect_solved(make_problem(GetParam(), 416, {2, 2}));
  expect_solved(make_problem(GetParam(), 416, {0, 1, 0, 2, 1, 2}));
  expect_solved(make_problem(GetParam(), 416, {0, 0, 1, 1, 2, 0, 0, 0, 2}));
}

TEST_P(SimdReduce, SumMayReplaceItsFirstAddend) {
  Problem problem = make_problem(GetParam(), 333, {0, 0, 0});
  const Row expected = problem.expected();
  std::vector<Addend> addends;
  for (Row& row : problem.rows) addends.push_back({row.data(), 0});
  ReduceJob job{problem.dtype, problem.num_channels,  addends, nullptr,
                nullptr,       problem.rows[0].data()};
  if (!problem.biases.empty()) job.bias_0 = problem.biases[0].data();
  if (problem.biases.size() > 1) job.bias_1 = problem.biases[1].data();
  reduce_row(job);
  EXPECT_EQ(std::memcmp(problem.rows[0].bytes(), expected.bytes(), problem.row_bytes()), 0);
}

INSTANTIATE_TEST_SUITE_P(Types, SimdReduce,
                         testing::Values(DType::kBFloat16, DType::kFloat16, DType::kFloat32),
                         [](const auto& type) { return std::string(dtype_name(type.param)); });

TEST(SimdReduceRounding, OneRoundingDiffersFromRoundingPerRank) {
  // 1 + 2^-8 + 2^-8 is 1.0078125 when summed at once; each half alone is lost to rounding.
  Problem flat{DType::kBFloat16, 1, {}, {0, 0, 0}, {}};
  for (const float value : {1.0f, 0.00390625f, 0.00390625f}) {
    flat.rows.emplace_back(2);
    ref::store(flat.rows.back().data(), flat.dtype, 0, value);
  }
  Problem nested = flat;
  nested.closes = {0, 1, 1};
  EXPECT_EQ(ref::load(flat.solve(StorePolicy::kCached).data(), flat.dtype, 0), 1.0078125f);
  EXPECT_EQ(ref::load(nested.solve(StorePolicy::kCached).data(), flat.dtype, 0), 1.0f);
}

TEST(SimdReduceRounding, OppositeInfinitiesGiveTheCanonicalNaN) {
  Problem problem{DType::kBFloat16, 40, {}, {0, 0}, {}};
  for (const float value : {kInfinity, -kInfinity}) {
    problem.rows.emplace_back(80);
    for (std::size_t i = 0; i < 40; ++i)
      ref::store(problem.rows.back().data(), problem.dtype, i, value);
  }
  const Row out = problem.solve(StorePolicy::kCached);
  for (std::size_t i = 0; i < 80; i += 2) {
    EXPECT_EQ(out.bytes()[i] | out.bytes()[i + 1] << 8, 0x7fff);
  }
}

TEST(SimdReduceDeathTest, MoreThanThreeLevelsAbort) {
  Problem problem = make_problem(DType::kFloat32, 8, {3});
  EXPECT_DEATH(problem.solve(StorePolicy::kCached), "deepest");
}

}  // namespace
}  // namespace moelink::simd
