// GPU time of the low latency operations, ranks being processes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace moelink::bench {

struct LowLatencyOptions {
  int ranks = 2;
  std::int64_t hidden = 7168;
  int num_experts = 288;
  int num_topk = 8;
  std::vector<std::int64_t> tokens{128, 16};
  std::vector<int> sms{0};  // 0: the buffer's choice
  int num_launches = 100;
  std::string command;
  std::string output;
};

// Starts the ranks, which share the GPUs: under an MPS daemon, or else they take turns. To be
// called before this process uses CUDA. Returns the exit code: 0 if all results were right.
int run_low_latency_bench(const LowLatencyOptions& options);

}  // namespace moelink::bench
