// Inputs by a small generator, the same in every run.
#include "node_rank.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <random>

namespace moelink::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kNumTopk = 8;
constexpr int kNumExperts = 64;
constexpr std::size_t kPutBytes = std::size_t{1} << 20;
static_assert(kTokensBytes % kPutBytes == 0);
constexpr int kNumMaxTokens = 16;  // of the low latency mode

// Before anything reads the environment, which is done once.
Group join(int number, const NodeJob& job) {
  ::setenv("MOELINK_FABRIC_PROVIDER", job.provider.c_str(), 1);
  return Group::connect({.rank = Rank(number),
                         .num_ranks = job.num_ranks,
                         .port = job.port,
                         .secret = "known to the ranks of this run"},
                        {.num_nodes = 2});
}

double elapsed_us(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

}  // namespace

NodeRank::NodeRank(Pair& rail_pair, int number, const NodeJob& job)
    : pair_(rail_pair), group_(join(number, job)), raw_(open_raw_fabric(pair_, job.provider)) {
  make_tokens();
}

// Each token goes to distinct experts, all of them equally likely.
void NodeRank::make_tokens() {
  x_ = make_host_tensor(DType::kBFloat16, {kNumTokens, kHidden});
  topk_idx_ = make_host_tensor(DType::kInt64, {kNumTokens, kNumTopk});
  std::mt19937 random(static_cast<unsigned>(group_.rank().value()) + 1);
  for (std::int64_t i = 0; i < x_.view.num_elements(); ++i) {
    x_.view.as<std::uint16_t>()[i] = static_cast<std::uint16_t>(0x3f80 + random() % 128);
  }
  std::array<std::int64_t, kNumExperts> experts;
  for (std::size_t i = 0; i < experts.size(); ++i) experts[i] = static_cast<std::int64_t>(i);
  for (std::int64_t t = 0; t < kNumTokens; ++t) {
    std::ranges::shuffle(experts, random);
    std::copy_n(experts.begin(), kNumTopk, topk_idx_.view.as<std::int64_t>() + t * kNumTopk);
  }
}

Buffer& NodeRank::buffer_of(NetworkPath path) {
  const auto found = buffers_.find(path);
  if (found != buffers_.end()) return found->second;
  BufferConfig config;
  config.network_path = path;
  return buffers_.emplace(path, Buffer(group_, config)).first->second;
}

template <class Action>
Sample NodeRank::timed(const Action& action) {
  group_.barrier();
  const auto start = Clock::now();
  action();
  double slowest = 0;
  for (const std::string& own : group_.all_gather(fmt::format("{}", elapsed_us(start)))) {
    slowest = std::max(slowest, std::strtod(own.c_str(), nullptr));
  }
  return {.us = slowest};
}

Sample NodeRank::exchange_raw(std::size_t bytes, std::size_t bytes_to_copy) {
  const std::size_t num_puts = bytes / kPutBytes;
  scratch_.resize(std::max(scratch_.size(), bytes_to_copy));
  Sample sample = timed([&] {
    for (std::size_t i = 0; i < num_puts; ++i) {
      raw_->put(i * kPutBytes % kHeapBytes, kPutBytes);
    }
    raw_->await(num_arrivals_ += num_puts);
    raw_->flush();
    const std::size_t piece = x_.view.num_bytes();
    for (std::size_t done = 0; done < bytes_to_copy; done += piece) {
      std::memcpy(scratch_.data() + done, x_.view.data, std::min(piece, bytes_to_copy - done));
    }
  });
  sample.bytes = num_puts * kPutBytes;
  return sample;
}

Sample NodeRank::dispatch(NetworkPath path) {
  Buffer& buffer = buffer_of(path);
  received_ = {};
  const std::uint64_t before = buffer.network_statistics().num_bytes;
  Sample sample = timed([&] {
    received_ =
        buffer.dispatch({.x = x_.view, .topk_idx = topk_idx_.view, .num_experts = kNumExperts});
  });
  sample.bytes = buffer.network_statistics().num_bytes - before;
  return sample;
}

Sample NodeRank::combine(NetworkPath path) {
  Buffer& buffer = buffer_of(path);
  const std::uint64_t before = buffer.network_statistics().num_bytes;
  Sample sample =
      timed([&] { buffer.combine({.x = received_.recv_x.view, .handle = received_.handle}); });
  sample.bytes = buffer.network_statistics().num_bytes - before;
  return sample;
}

Sample NodeRank::exchange_raw_small(std::size_t bytes, int num_times) {
  Sample sample = timed([&] {
    for (int i = 0; i < num_times; ++i) {
      raw_->put(0, bytes);
      raw_->await(++num_arrivals_);
    }
    raw_->flush();
  });
  return {.us = sample.us / num_times, .bytes = bytes};
}

Sample NodeRank::put_raw_small(std::size_t bytes, int num_times) {
  Sample sample = timed([&] {
    for (int i = 0; i < num_times; ++i) {
      if (pair_.rank() == 0) raw_->put(0, bytes);
      raw_->await(++num_arrivals_);
      if (pair_.rank() == 1) raw_->put(0, bytes);
    }
    raw_->flush();
  });
  return {.us = sample.us / (2.0 * num_times), .bytes = bytes};
}

Sample NodeRank::dispatch_small(int num_times) {
  Buffer& buffer = buffer_of(NetworkPath::kHierarchical);
  std::int64_t expert = 1 - group_.rank().value();
  const LowLatencyDispatchConfig config{
      .x = TensorView::contiguous(x_.view.data, DType::kBFloat16, {1, kHidden}),
      .topk_idx = TensorView::contiguous(&expert, DType::kInt64, {1, 1}),
      .num_max_tokens_per_rank = kNumMaxTokens,
      .num_experts = group_.num_ranks()};
  const Sample sample = timed([&] {
    for (int i = 0; i < num_times; ++i) buffer.low_latency_dispatch(config);
  });
  return {.us = sample.us / num_times, .bytes = kRowBytes};
}

void NodeRank::close() {
  received_ = {};
  for (auto& [path, buffer] : buffers_) buffer.close();
}

}  // namespace moelink::bench
