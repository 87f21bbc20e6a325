// weighted_sum_row: multiplies and adds block by block, with the sums in registers.
#include "backend/cpu/simd/weighted.hpp"

#include <cstring>

#include "backend/cpu/simd/highway_setup.hpp"
#include "backend/cpu/simd/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/simd/weighted.cpp"
#include "hwy/foreach_target.h"

#include "backend/cpu/simd/codec-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace moelink::simd {
namespace HWY_NAMESPACE {

constexpr std::size_t kPairBytes = kPairChannels * BFloat16::kBytes;
constexpr std::size_t kPairsPerBlock = 4;

HWY_INLINE void add_product(Pair& sum, Floats weight, Pair row) {
  sum.first = hn::Add(sum.first, hn::Mul(weight, row.first));
  sum.second = hn::Add(sum.second, hn::Mul(weight, row.second));
}

template <std::size_t kPairs>
void sum_block(std::span<const WeightedRow> rows, std::size_t offset, std::uint8_t* out) {
  Pair sums[kPairs];
#pragma GCC unroll 4
  for (Pair& sum : sums) sum = {hn::Zero(FloatTag()), hn::Zero(FloatTag())};
  for (const WeightedRow& addend : rows) {
    const Floats weight = hn::Set(FloatTag(), addend.weight);
    const auto* const from = static_cast<const std::uint8_t*>(addend.row) + offset;
#pragma GCC unroll 4
    for (std::size_t i = 0; i < kPairs; ++i) {
      add_product(sums[i], weight, BFloat16::load_pair(from + i * kPairBytes));
    }
  }
#pragma GCC unroll 4
  for (std::size_t i = 0; i < kPairs; ++i) {
    BFloat16::store_pair<StorePolicy::kCached>(sums[i], out + offset + i * kPairBytes);
  }
}

// The last channels, which do not fill a pair of vectors.
void sum_tail(std::span<const WeightedRow> rows, std::size_t offset, std::size_t bytes,
              std::uint8_t* out) {
  alignas(64) std::uint8_t padded[kPairBytes] = {};
  Pair sum = {hn::Zero(FloatTag()), hn::Zero(FloatTag())};
  for (const WeightedRow& addend : rows) {
    std::memcpy(padded, static_cast<const std::uint8_t*>(addend.row) + offset, bytes);
    add_product(sum, hn::Set(FloatTag(), addend.weight), BFloat16::load_pair(padded));
  }
  BFloat16::store_pair<StorePolicy::kCached>(sum, padded);
  std::memcpy(out + offset, padded, bytes);
}

void weighted_sum_on_target(std::span<const WeightedRow> rows, std::size_t num_channels,
                            std::uint8_t* out) {
  const std::size_t bytes = num_channels * BFloat16::kBytes;
  std::size_t offset = 0;
  for (; offset + kPairsPerBlock * kPairBytes <= bytes; offset += kPairsPerBlock * kPairBytes) {
    sum_block<kPairsPerBlock>(rows, offset, out);
  }
  for (; offset + kPairBytes <= bytes; offset += kPairBytes) sum_block<1>(rows, offset, out);
  if (offset < bytes) sum_tail(rows, offset, bytes - offset, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace moelink::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moelink::simd {

HWY_EXPORT(weighted_sum_on_target);

void weighted_sum_row(std::span<const WeightedRow> rows, std::size_t num_channels, void* out) {
  apply_environment_limit();
  HWY_DYNAMIC_DISPATCH(weighted_sum_on_target)(rows, num_channels, static_cast<std::uint8_t*>(out));
}

}  // namespace moelink::simd
#endif
