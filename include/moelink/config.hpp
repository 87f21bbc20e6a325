// Arguments of the calls on a Buffer, as structs with named fields.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "moelink/event.hpp"
#include "moelink/types.hpp"

namespace moelink {

// Symbols: R ranks, T tokens of this rank, H channels, K = top-k, E experts, L = E/R experts per
// rank, N rows received. Expert e lives on rank e / L.

enum class Layout : std::uint8_t {
  kCompact,      // a row per (token, destination rank), ordered by (source rank, token)
  kExpertMajor,  // a row per (token, local expert), grouped by expert, groups padded to an
                 // alignment
};

enum class Padding : std::uint8_t { kZero, kLeave };  // rows between the expert groups

enum class Completion : std::uint8_t {
  kSync,   // the call returns when the results are usable
  kAsync,  // the call returns early; the result's event tells when they are
};

// What happens when a peer is lost (dies, gives up or is late).
enum class Survival : std::uint8_t {
  kRaise,  // the operation throws and the buffer is broken
  // The peer is masked, a warning is logged, and the operation goes on without it. On GPUs that are
  // low latency operations, and no warning: high-throughput ones throw as with kRaise.
  kMask,
};

// How the tokens of high-throughput operations cross the network between nodes (CPU backend).
enum class NetworkPath : std::uint8_t {
  // MOELINK_NETWORK_MODE if set; else direct with Survival::kMask, hierarchical without.
  kAuto,
  // Once per destination node, to the rank there with the same local number, which forwards them;
  // sums come back by the same way, one row per token and node.
  kHierarchical,
  // Once per destination rank, and one row per token and rank back: for small groups.
  kDirect,
};

enum class DeviceKind : std::uint8_t { kCpu, kCuda };

// Where the tensors of a buffer live.
struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;  // CUDA device
};

// Whether kernels note when they pass the stages of a token (CUDA backend).
enum class StageClock : std::uint8_t { kOff, kOn };

struct BufferConfig {
  Device device;
  // Largest payload of one row in bytes; 0: any. Larger rows are refused with a clear error.
  std::size_t hidden_bytes = 0;
  // Most symmetric memory that this rank may use; 0: what the machine has, and 1 GiB on a GPU,
  // where it is taken when the buffer is made.
  std::size_t max_symmetric_bytes = 0;
  int max_num_experts = 2048;
  // Threads that one operation may use, on a GPU: streaming multiprocessors. 0: the cores that this
  // rank can call its own; on a GPU 24, or fewer if other ranks share it. Low latency operations on
  // a GPU use this rank's share of all, unless the call says how many.
  int num_workers = 0;
  // Longest wait for a peer inside one operation; 0: the group's.
  std::chrono::milliseconds timeout{0};
  Survival survival = Survival::kRaise;
  NetworkPath network_path = NetworkPath::kAuto;
  StageClock stage_clock = StageClock::kOff;
  // For stress tests of the CUDA backend: every thread block is held up at each stage by a random
  // time of less than this.
  std::chrono::microseconds stress_delay{0};
};

// What each call may say about its execution.
struct StreamOptions {
  Completion completion = Completion::kSync;
  // If set, the operation waits for this event before it reads its inputs.
  Event previous_event;
  // 0: the buffer's.
  int num_workers = 0;
  // CUDA backend: the cudaStream_t of the caller. The operation runs behind what is enqueued there
  // (with previous_event: behind that event only), and with kSync later work there sees the
  // results. Null: the legacy default stream.
  void* cuda_stream = nullptr;
};

struct LayoutConfig {
  TensorView topk_idx;  // int64 or int32 [T, K], -1 = no selection
  int num_experts = 0;
  void* cuda_stream = nullptr;  // as in StreamOptions
};

struct DispatchConfig {
  TensorView x;                      // [T, H], any type; row bytes a multiple of 16
  std::optional<TensorView> scales;  // [T, S] of 1- or 4-byte elements, any strides, opaque
  TensorView topk_idx;               // int64 or int32 [T, K]; may be absent with is_token_in_rank
  std::optional<TensorView> topk_weights;  // float32 [T, K]
  // bool [T, R]: overrides the destinations that follow from topk_idx. Compact layout only.
  std::optional<TensorView> is_token_in_rank;
  // int32 [L]: the number of rows received by each local expert is added (unaligned).
  std::optional<TensorView> recv_stats;
  int num_experts = 0;
  Layout layout = Layout::kCompact;
  int expert_alignment = 1;
  Padding padding = Padding::kZero;
  // >0: receive tensors get exactly so many rows and the call does not wait for the counts; rows
  // that stay unused have topk_idx -1 and weight 0, their payload is unspecified.
  std::int64_t num_worst_tokens = 0;
  StreamOptions stream;
};

class Routing;  // the routing of one dispatch; immutable after its event

// Dispatch again with the placement of an earlier dispatch.
struct CachedDispatchConfig {
  TensorView x;  // [T, H] with the T of the handle; the type may differ
  std::optional<TensorView> scales;
  std::optional<TensorView> topk_weights;  // float32 [T, K]
  std::shared_ptr<const Routing> handle;
  StreamOptions stream;
};

struct CombineConfig {
  TensorView x;  // [rows, H] in the row order of the dispatch; bfloat16, float16 or float32
  // Compact: float32 [rows, K]; expert-major: float32 [rows].
  std::optional<TensorView> topk_weights;
  std::optional<TensorView> bias_0;  // [T, H] of x's type, added before the sum
  std::optional<TensorView> bias_1;
  std::optional<TensorView> out;  // [T, H] of x's type: written instead of a new tensor
  std::shared_ptr<const Routing> handle;
  StreamOptions stream;
};

}  // namespace moelink
