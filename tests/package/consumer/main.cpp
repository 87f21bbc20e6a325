// One rank sends tokens to itself and gets them back: proves that the installed library works.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "moelink/moelink.hpp"

int main() {
  constexpr std::int64_t kNumTokens = 3;
  constexpr std::int64_t kHidden = 8;
  std::vector<float> tokens(kNumTokens * kHidden, 1.5F);
  std::vector<std::int64_t> experts = {0, 1, 0};

  moelink::Buffer buffer(moelink::Group::of_threads(1).front());
  moelink::DispatchConfig dispatch;
  dispatch.x = moelink::TensorView::contiguous(tokens.data(), moelink::DType::kFloat32,
                                               {kNumTokens, kHidden});
  dispatch.topk_idx =
      moelink::TensorView::contiguous(experts.data(), moelink::DType::kInt64, {kNumTokens, 1});
  dispatch.num_experts = 2;
  const moelink::DispatchResult received = buffer.dispatch(dispatch);

  moelink::CombineConfig combine;
  combine.x = received.recv_x.view;
  combine.handle = received.handle;
  const moelink::CombineResult result = buffer.combine(combine);
  const bool same =
      result.combined_x.view.num_bytes() == tokens.size() * sizeof(float) &&
      std::memcmp(result.combined_x.view.data, tokens.data(), tokens.size() * sizeof(float)) == 0;
  std::printf("moelink %s: tokens came back %s\n", moelink::kVersion,
              same ? "unchanged" : "CHANGED");
  return same ? 0 : 1;
}
