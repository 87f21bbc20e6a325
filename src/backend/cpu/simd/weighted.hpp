// Mover of the low latency combine: a weighted sum of rows.
#pragma once

#include <cstddef>
#include <span>

namespace moelink::simd {

struct WeightedRow {
  const void* row;  // bfloat16
  float weight;
};

// out = round(sum of weight * row), bfloat16: in order, accumulated in float32 from 0, every
// product and every sum rounded to float32 (no fused multiply-add), bitwise the same on every SIMD
// target. Rows are aligned to 16 bytes; `rows` may be empty.
void weighted_sum_row(std::span<const WeightedRow> rows, std::size_t num_channels, void* out);

}  // namespace moelink::simd
