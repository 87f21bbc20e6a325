// The shortest complete use: four ranks, as threads of this process, exchange tokens of an MoE
// layer.
#include "moelink/moelink.hpp"

#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

namespace {

constexpr std::int64_t kTokens = 6;   // of each rank
constexpr std::int64_t kHidden = 64;  // channels of a token
constexpr std::int64_t kTopk = 2;     // experts that a token visits
constexpr int kExperts = 8;           // two on each rank

// Each token visits expert t on rank t / 2 and the last expert; every channel holds the token's
// number.
bool run_rank(const moelink::Group& group) {
  moelink::Buffer buffer(group);
  moelink::Tensor x = moelink::make_host_tensor(moelink::DType::kFloat32, {kTokens, kHidden});
  moelink::Tensor topk_idx = moelink::make_host_tensor(moelink::DType::kInt64, {kTokens, kTopk});
  for (std::int64_t t = 0; t < kTokens; ++t) {
    for (std::int64_t c = 0; c < kHidden; ++c) {
      x.view.as<float>()[t * kHidden + c] = static_cast<float>(t);
    }
    topk_idx.view.as<std::int64_t>()[t * kTopk] = t;
    topk_idx.view.as<std::int64_t>()[t * kTopk + 1] = kExperts - 1;
  }

  const moelink::DispatchResult received =
      buffer.dispatch({.x = x.view, .topk_idx = topk_idx.view, .num_experts = kExperts});

  // The experts of this rank work on received.recv_x here. Ours multiply by rank + 1.
  float* const rows = received.recv_x.view.as<float>();
  for (std::int64_t i = 0; i < received.recv_x.view.num_elements(); ++i) {
    rows[i] *= static_cast<float>(group.rank().value() + 1);
  }

  const moelink::CombineResult result =
      buffer.combine({.x = received.recv_x.view, .handle = received.handle});

  // A token visited the ranks t / 2 and 3; combine has added up what they returned.
  bool correct = true;
  for (std::int64_t t = 0; t < kTokens; ++t) {
    const std::int64_t factor = (t / 2 + 1) + 4;
    const float seen = result.combined_x.view.as<float>()[t * kHidden];
    correct = correct && seen == static_cast<float>(t * factor);
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
  std::puts("all tokens came back with the sum of what their experts returned");
  return 0;
}
