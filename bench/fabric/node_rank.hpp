// One rank of two emulated nodes, and what it can do to be measured.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "contestant.hpp"
#include "moelink/moelink.hpp"

namespace moelink::bench {

inline constexpr std::int64_t kHidden = 7168;  // bfloat16
inline constexpr std::int64_t kNumTokens = 2048;
inline constexpr std::size_t kRowBytes = static_cast<std::size_t>(kHidden) * 2;
inline constexpr std::size_t kTokensBytes = static_cast<std::size_t>(kNumTokens) * kRowBytes;

// What the ranks of a run have in common.
struct NodeJob {
  std::string provider;
  int num_ranks = 0;
  std::uint16_t port = 0;  // of the rendezvous
};

// Time of the slowest rank, and bytes that this rank sent over the network.
struct Sample {
  double us = 0;
  std::uint64_t bytes = 0;
};
using Samples = std::map<std::string, std::vector<Sample>>;

// Collective: nobody begins before all are ready, and all get the same time.
class NodeRank {
 public:
  NodeRank(Pair& rail_pair, int number, const NodeJob& job);

  // Every rank puts so many bytes, the same at all, to its rail peer in puts of 1 MiB, all at once;
  // then copies `bytes_to_copy` in its own memory.
  Sample exchange_raw(std::size_t bytes, std::size_t bytes_to_copy);
  // Of all tokens, and of what they have become. In this order.
  Sample dispatch(NetworkPath path);
  Sample combine(NetworkPath path);
  // Both ranks put `bytes` and wait for the other's; the time is that of one exchange.
  Sample exchange_raw_small(std::size_t bytes, int num_times);
  // The ranks take turns; the time is that of one put.
  Sample put_raw_small(std::size_t bytes, int num_times);
  // One token to the other rank and one back, in one low latency dispatch.
  Sample dispatch_small(int num_times);

  std::size_t num_received_bytes() const { return received_.recv_x.view.num_bytes(); }
  void close();

 private:
  Buffer& buffer_of(NetworkPath path);
  template <class Action>
  Sample timed(const Action& action);
  void make_tokens();

  Pair& pair_;
  Group group_;
  std::unique_ptr<Contestant> raw_;
  std::uint64_t num_arrivals_ = 0;
  std::map<NetworkPath, Buffer> buffers_;
  Tensor x_;
  Tensor topk_idx_;
  DispatchResult received_;
  std::vector<std::byte> scratch_;
};

}  // namespace moelink::bench
