// Every environment variable that Moelink reads, in one place, read once.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace moelink {

struct Environment {
  std::string log_level = "warning";  // MOELINK_LOG: trace, debug, info, warning, error, off
  std::string secret;                 // MOELINK_SECRET: shared by the job's ranks
  std::optional<std::chrono::milliseconds> timeout;  // MOELINK_TIMEOUT_MS
  int num_nodes = 0;                                 // MOELINK_NODES: emulated nodes, 0 = not set
  int num_workers = 0;                  // MOELINK_WORKERS: threads per operation, 0 = not set
  std::size_t max_symmetric_bytes = 0;  // MOELINK_MAX_SYMMETRIC_BYTES, 0 = not set
  std::string simd;                     // MOELINK_SIMD: highest SIMD target allowed, "" = best
  // MOELINK_CUDA_MEMORY: how ranks share memory for GPUs: auto, pinned, among processes vmm, fabric
  // or ipc
  std::string cuda_memory = "auto";
  // MOELINK_LINES: how low latency messages cross links between GPUs: auto, whole, split
  std::string line_format = "auto";
  // MOELINK_NETWORK: what carries traffic between nodes: auto, libfabric; loopback between ranks
  // that are threads; memory: shared memory, for emulated nodes only
  std::string network = "auto";
  // MOELINK_NETWORK_MODE: how high-throughput tokens cross it: auto, hierarchical, direct
  std::string network_mode = "auto";
  std::string fabric_provider;  // MOELINK_FABRIC_PROVIDER: of libfabric, "" = the best
  int max_nics = 1;             // MOELINK_NICS: network cards that one rank may use at a time

  // Throws Error(kInvalidArgument) naming the variable whose value does not parse.
  static Environment read();
};

// Read at the first call, constant afterwards.
const Environment& environment();

}  // namespace moelink
