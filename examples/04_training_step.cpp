// One training step: the backward pass of dispatch is a combine, that of combine is a cached
// dispatch, and both reuse the handle of the forward pass, so that nothing is routed again.
#include "moelink/moelink.hpp"

#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

namespace {

constexpr std::int64_t kTokens = 40;
constexpr std::int64_t kHidden = 64;
constexpr std::int64_t kTopk = 2;
constexpr int kExperts = 4;  // one on each rank

// Expert e computes y = w_e * x; a token's output is the sum over its experts.
float weight_of(int expert) { return 1.0F + static_cast<float>(expert); }

moelink::Tensor scaled(const moelink::Buffer& buffer, const moelink::Tensor& rows) {
  moelink::Tensor result =
      moelink::make_host_tensor(moelink::DType::kFloat32, {rows.view.shape[0], rows.view.shape[1]});
  const float factor = weight_of(buffer.group().rank().value());
  for (std::int64_t i = 0; i < rows.view.num_elements(); ++i) {
    result.view.as<float>()[i] = factor * rows.view.as<float>()[i];
  }
  return result;
}

// Sum of the weights of the experts that token t visits: t and t + 1, modulo their number.
float gradient_factor(std::int64_t t) {
  const int first = static_cast<int>(t % kExperts);
  return weight_of(first) + weight_of((first + 1) % kExperts);
}

bool run_rank(const moelink::Group& group) {
  moelink::Buffer buffer(group);
  moelink::Tensor x = moelink::make_host_tensor(moelink::DType::kFloat32, {kTokens, kHidden});
  moelink::Tensor grad_y = moelink::make_host_tensor(moelink::DType::kFloat32, {kTokens, kHidden});
  moelink::Tensor topk_idx = moelink::make_host_tensor(moelink::DType::kInt64, {kTokens, kTopk});
  for (std::int64_t i = 0; i < kTokens * kHidden; ++i) {
    x.view.as<float>()[i] = static_cast<float>(i % 11);
    grad_y.view.as<float>()[i] = static_cast<float>(i % 5);
  }
  for (std::int64_t i = 0; i < kTokens * kTopk; ++i) {
    topk_idx.view.as<std::int64_t>()[i] = (i / kTopk + i % kTopk) % kExperts;
  }

  // Forward: dispatch, experts, combine. The expert keeps its inputs for the gradient of w.
  const moelink::DispatchResult inputs =
      buffer.dispatch({.x = x.view, .topk_idx = topk_idx.view, .num_experts = kExperts});
  const moelink::Tensor outputs = scaled(buffer, inputs.recv_x);
  const moelink::CombineResult y = buffer.combine({.x = outputs.view, .handle = inputs.handle});

  // Backward of combine: every expert gets the gradient of each of its tokens.
  const moelink::DispatchResult grad_outputs =
      buffer.dispatch({.x = grad_y.view, .handle = inputs.handle});
  float grad_w = 0.0F;
  for (std::int64_t i = 0; i < inputs.recv_x.view.num_elements(); ++i) {
    grad_w += grad_outputs.recv_x.view.as<float>()[i] * inputs.recv_x.view.as<float>()[i];
  }
  // Backward of dispatch: the gradients of a token's copies are added up at its own rank.
  const moelink::Tensor grad_inputs = scaled(buffer, grad_outputs.recv_x);
  const moelink::CombineResult grad_x =
      buffer.combine({.x = grad_inputs.view, .handle = inputs.handle});

  bool correct = true;
  float expected_grad_w = 0.0F;  // of this rank's expert; all ranks have the same tokens
  for (std::int64_t i = 0; i < kTokens * kHidden; ++i) {
    const std::int64_t t = i / kHidden;
    const float factor = gradient_factor(t);
    const float own_x = x.view.as<float>()[i];
    const float own_grad = grad_y.view.as<float>()[i];
    correct = correct && y.combined_x.view.as<float>()[i] == factor * own_x;
    correct = correct && grad_x.combined_x.view.as<float>()[i] == factor * own_grad;
    const std::int64_t expert = group.rank().value();
    const bool visits = t % kExperts == expert || (t + 1) % kExperts == expert;
    if (visits) expected_grad_w += static_cast<float>(kExperts) * own_x * own_grad;
  }
  correct = correct && grad_w == expected_grad_w;
  buffer.close();
  return correct;
}

}  // namespace

int main() {
  std::vector<moelink::Group> groups = moelink::Group::of_threads(kExperts);
  std::vector<int> correct(groups.size());
  std::vector<std::thread> ranks;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    ranks.emplace_back([&, i] { correct[i] = run_rank(groups[i]) ? 1 : 0; });
  }
  for (std::thread& rank : ranks) rank.join();
  for (const int one : correct) {
    if (one == 0) return 1;
  }
  std::puts("outputs and gradients are exact");
  return 0;
}
