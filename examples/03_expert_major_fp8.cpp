// Expert-major layout with FP8 tokens: each expert finds its rows next to one another, ready for a
// grouped matrix multiplication, and half the bytes travel.
#include "moelink/moelink.hpp"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

namespace {

constexpr std::int64_t kTokens = 50;
constexpr std::int64_t kHidden = 256;  // two blocks of 128 channels share a scale each
constexpr std::int64_t kTopk = 2;
constexpr int kExperts = 8;
constexpr int kAlignment = 16;  // rows of a group are padded to a multiple of the GEMM's tile

float value_of(std::int64_t token, std::int64_t channel) {
  return static_cast<float>(token + 1) * 0.01F * static_cast<float>(channel % 7 - 3);
}

float factor_of(std::int64_t expert) { return 1.0F + static_cast<float>(expert) * 0.25F; }

// What experts do: each multiplies its group of rows, here by a number in place of a matrix.
moelink::Tensor run_experts(const moelink::Buffer& buffer,
                            const moelink::DispatchResult& received) {
  const moelink::Tensor rows = moelink::dequantize_fp8(
      received.recv_x.view, received.recv_scales->view, moelink::DType::kFloat32);
  const std::vector<std::int64_t>& group_rows = received.num_recv_tokens_per_expert;
  const auto per_rank = static_cast<std::int64_t>(group_rows.size());
  float* row = rows.view.as<float>();
  for (std::int64_t local = 0; local < per_rank; ++local) {
    const float factor = factor_of(buffer.group().rank().value() * per_rank + local);
    const std::int64_t num_values = group_rows[static_cast<std::size_t>(local)] * kHidden;
    for (std::int64_t i = 0; i < num_values; ++i) row[i] *= factor;
    row += num_values;
  }
  return rows;
}

bool is_close(float seen, float expected) {
  return std::fabs(seen - expected) <= 0.0701F * std::fabs(expected) + 1e-3F;  // E4M3: 3 bits
}

bool run_rank(const moelink::Group& group) {
  moelink::Buffer buffer(group);
  moelink::Tensor x = moelink::make_host_tensor(moelink::DType::kFloat32, {kTokens, kHidden});
  moelink::Tensor topk_idx = moelink::make_host_tensor(moelink::DType::kInt64, {kTokens, kTopk});
  for (std::int64_t t = 0; t < kTokens; ++t) {
    for (std::int64_t c = 0; c < kHidden; ++c) {
      x.view.as<float>()[t * kHidden + c] = value_of(t, c);
    }
    topk_idx.view.as<std::int64_t>()[t * kTopk] = t % kExperts;
    topk_idx.view.as<std::int64_t>()[t * kTopk + 1] = (t * 3 + 1) % kExperts;
  }
  const moelink::QuantizedRows small =
      moelink::quantize_fp8(x.view, moelink::ScaleFormat::kFloat32);

  const moelink::DispatchResult received = buffer.dispatch({.x = small.values.view,
                                                            .scales = small.scales.view,
                                                            .topk_idx = topk_idx.view,
                                                            .num_experts = kExperts,
                                                            .layout = moelink::Layout::kExpertMajor,
                                                            .expert_alignment = kAlignment});
  const moelink::Tensor returned = run_experts(buffer, received);
  const moelink::CombineResult result =
      buffer.combine({.x = returned.view, .handle = received.handle});

  bool correct = true;
  for (std::int64_t t = 0; t < kTokens; ++t) {
    const float factors = factor_of(t % kExperts) + factor_of((t * 3 + 1) % kExperts);
    for (std::int64_t c = 0; c < kHidden; ++c) {
      const float seen = result.combined_x.view.as<float>()[t * kHidden + c];
      correct = correct && is_close(seen, value_of(t, c) * factors);
    }
  }
  buffer.close();
  return correct;
}

}  // namespace

int main() {
  std::vector<moelink::Group> groups = moelink::Group::of_threads(4);
  std::vector<int> correct(groups.size());
  std::vector<std::thread> ranks;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    ranks.emplace_back([&, i] { correct[i] = run_rank(groups[i]) ? 1 : 0; });
  }
  for (std::thread& rank : ranks) rank.join();
  for (const int one : correct) {
    if (one == 0) return 1;
  }
  std::puts("the grouped experts saw FP8 rows; results agree within FP8's precision");
  return 0;
}
