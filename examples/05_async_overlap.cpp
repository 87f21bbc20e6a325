// Overlap: while one half of the tokens travels, the experts work on the other half.
#include "moelink/moelink.hpp"

#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

namespace {

constexpr std::int64_t kTokens = 64;  // of each half
constexpr std::int64_t kHidden = 512;
constexpr int kExperts = 4;
constexpr int kHalves = 2;

struct Half {
  moelink::Tensor x = moelink::make_host_tensor(moelink::DType::kFloat32, {kTokens, kHidden});
  moelink::Tensor topk_idx = moelink::make_host_tensor(moelink::DType::kInt64, {kTokens, 1});
  moelink::DispatchResult received;
  moelink::CombineResult result;
};

// An asynchronous call returns at once; its inputs and results belong to it until its event is
// done.
moelink::StreamOptions asynchronously() {
  moelink::StreamOptions options;
  options.completion = moelink::Completion::kAsync;
  return options;
}

void fill(Half& half, int number) {
  for (std::int64_t i = 0; i < kTokens * kHidden; ++i) {
    half.x.view.as<float>()[i] = static_cast<float>(i % 100 + number);
  }
  for (std::int64_t t = 0; t < kTokens; ++t)
    half.topk_idx.view.as<std::int64_t>()[t] = t % kExperts;
}

void run_experts(const moelink::Tensor& rows) {
  for (std::int64_t i = 0; i < rows.view.num_elements(); ++i) rows.view.as<float>()[i] *= 3.0F;
}

bool run_rank(const moelink::Group& group) {
  moelink::Buffer buffer(group);
  Half halves[kHalves];
  for (int i = 0; i < kHalves; ++i) {
    fill(halves[i], i);
    halves[i].received = buffer.dispatch({.x = halves[i].x.view,
                                          .topk_idx = halves[i].topk_idx.view,
                                          .num_experts = kExperts,
                                          .stream = asynchronously()});
  }
  for (Half& half : halves) {
    half.received.event.wait();  // this half has arrived; the next one is on its way
    run_experts(half.received.recv_x);
    half.result = buffer.combine({.x = half.received.recv_x.view,
                                  .handle = half.received.handle,
                                  .stream = asynchronously()});
  }
  bool correct = true;
  for (Half& half : halves) {
    half.result.event.wait();  // throws if the exchange failed
    for (std::int64_t i = 0; i < kTokens * kHidden; ++i) {
      const float seen = half.result.combined_x.view.as<float>()[i];
      correct = correct && seen == 3.0F * half.x.view.as<float>()[i];
    }
  }
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
  std::puts("both halves came back complete");
  return 0;
}
