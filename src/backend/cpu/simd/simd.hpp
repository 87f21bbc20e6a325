// Movers of the CPU backend: copy, convert, quantise and reduce one row. Each picks the best SIMD
// target of the running CPU. No rank, expert or token appears here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "moelink/dtypes.hpp"
#include "moelink/quantize.hpp"

namespace moelink::simd {

// Copies one row to several places; `bytes` is a multiple of 16, pointers are 16-byte aligned.
// Streaming writes past the caches: for large transfers that this core will not read soon.
enum class StorePolicy { kCached, kStreaming };
// Transfers of at least this size would only push other data out of the caches.
inline constexpr std::size_t kStreamingBytes = std::size_t{1} << 20;
constexpr StorePolicy policy_for(std::size_t transfer_bytes) {
  return transfer_bytes >= kStreamingBytes ? StorePolicy::kStreaming : StorePolicy::kCached;
}
void copy_row(const void* source, std::span<void* const> destinations, std::size_t bytes,
              StorePolicy policy);
// Orders streaming stores before a following release store. Call once after a batch of rows.
void streaming_fence();

// One addend of a reduction. Addends are summed in order at the innermost level; `closes` says how
// many enclosing levels end after this addend (0: none, 1: a rank's rows, 2: also a node's ranks).
// Each level that ends is rounded once to the element type before it joins the level above.
struct Addend {
  const void* row;
  std::uint32_t closes;
};

struct ReduceJob {
  DType dtype;                      // kBFloat16, kFloat16 or kFloat32: of all rows
  std::size_t num_channels;         // any; rows are aligned to 16 bytes
  std::span<const Addend> addends;  // may be empty
  const void* bias_0 = nullptr;     // same type, may be null
  const void* bias_1 = nullptr;
  void* out;  // receives the sum, rounded to nearest even
  StorePolicy policy = StorePolicy::kCached;
};

// out = round(bias_0 + bias_1 + sum of the outermost level), accumulated in float32, starting from
// bias_0 + bias_1 (or 0). Bitwise the same on every SIMD target (no fused or reordered adds).
void reduce_row(const ReduceJob& job);

// float32 <-> bfloat16 / float16: to nearest even, NaN stays NaN.
void convert_row(const void* source, DType source_dtype, void* destination, DType destination_dtype,
                 std::size_t num_channels);

// Quantises one row of `num_channels` (multiple of 128). `scales`: num_channels/128 floats, or
// ceil(num_channels/512) int32 for kPackedUE8M0. Exactly as `quantize.hpp` and the contract define.
void quantize_row(const void* source, DType source_dtype, std::size_t num_channels,
                  ScaleFormat format, std::uint8_t* values, void* scales);
// `scales[i]`: the float scale of block i.
void dequantize_row(const std::uint8_t* values, const float* scales, std::size_t num_channels,
                    void* destination, DType destination_dtype);

// "AVX3_ZEN4", "AVX2", "NEON", ...: what the calls above run on.
const char* target_name();

}  // namespace moelink::simd
