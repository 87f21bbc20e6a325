// quantize_row and dequantize_row: block-scaled float8_e4m3fn by arithmetic in float32 lanes.
#include <bit>
#include <cstring>

#include "backend/cpu/simd/highway_setup.hpp"
#include "backend/cpu/simd/jobs.hpp"
#include "backend/cpu/simd/simd.hpp"
#include "backend/cpu/simd/targets.hpp"
#include "base/check.hpp"
#include "protocol/block_scale.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/simd/quantize.cpp"
#include "hwy/foreach_target.h"

#include "backend/cpu/simd/codec-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace moelink::simd {
namespace HWY_NAMESPACE {

constexpr std::size_t kBlock = kScaleBlock;

HWY_INLINE auto as_ints(Words value) { return hn::BitCast(IntTag(), value); }
HWY_INLINE Words as_words(hn::Vec<IntTag> value) { return hn::BitCast(WordTag(), value); }

// The bits of |value|, or 0 for NaN: a NaN must not hide the scale of its neighbours.
HWY_INLINE auto magnitude_bits(Floats value) {
  const Words magnitude = hn::And(bits_of(value), word(0x7fffffffu));
  return as_ints(hn::IfThenZeroElse(is_nan(value), magnitude));
}

template <class Codec>
HWY_INLINE float largest_magnitude(const std::uint8_t* block) {
  // Non-negative floats are ordered as their bits are.
  auto first = hn::Zero(IntTag());
  auto second = hn::Zero(IntTag());
  for (std::size_t i = 0; i < kBlock; i += kPairChannels) {
    const Pair pair = Codec::load_pair(block + i * Codec::kBytes);
    first = hn::Max(first, magnitude_bits(pair.first));
    second = hn::Max(second, magnitude_bits(pair.second));
  }
  return std::bit_cast<float>(hn::GetLane(hn::MaxOfLanes(IntTag(), hn::Max(first, second))));
}

// The byte of float8_e4m3fn in each lane: saturated, to nearest even; NaN becomes 0x7f.
HWY_INLINE Words to_e4m3(Floats value) {
  const FloatTag d;
  const Words sign = hn::ShiftRight<24>(hn::And(bits_of(value), word(0x80000000u)));
  const Floats magnitude =
      hn::Min(float_of(hn::And(bits_of(value), word(0x7fffffffu))), hn::Set(d, kE4M3Max));
  // The exponent, at least that of subnormals, 2^-6. Adding 2^(exponent + 20) makes the last of
  // the 3 mantissa bits the last place of the sum: the addition rounds.
  const auto least = hn::Set(IntTag(), 121);
  const auto exponent = hn::Max(as_ints(hn::ShiftRight<23>(bits_of(magnitude))), least);
  const Words magic = as_words(hn::ShiftLeft<23>(hn::Add(exponent, hn::Set(IntTag(), 20))));
  const Words rounded = hn::Sub(bits_of(hn::Add(magnitude, float_of(magic))), magic);
  const Words byte = hn::Add(rounded, as_words(hn::ShiftLeft<3>(hn::Sub(exponent, least))));
  return hn::IfThenElse(is_nan(value), word(0x7fu), hn::Or(byte, sign));
}

HWY_INLINE Floats from_e4m3(Words byte) {
  const Words code = hn::And(byte, word(0x7fu));
  const Words shifted = hn::ShiftLeft<20>(code);
  const Words normal = hn::Add(shifted, word(120u << 23));  // exponent bias 7 -> 127
  const Words subnormal =
      bits_of(hn::Sub(float_of(hn::Add(shifted, word(121u << 23))), float_of(word(121u << 23))));
  const Words finite = hn::IfThenElse(less(code, word(8)), subnormal, normal);
  const Words value = hn::IfThenElse(less(code, word(0x7f)), finite, word(0x7fc00000u));
  return float_of(hn::Or(value, hn::ShiftLeft<24>(hn::And(byte, word(0x80u)))));
}

template <class Codec>
HWY_INLINE void quantize_block(const std::uint8_t* block, float inverse, std::uint8_t* values) {
  const auto factor = hn::Set(FloatTag(), inverse);
  for (std::size_t i = 0; i < kBlock; i += kLanes) {
    const Words bytes = to_e4m3(hn::Mul(Codec::load(block + i * Codec::kBytes), factor));
    hn::StoreU(hn::DemoteTo(ByteTag(), as_ints(bytes)), ByteTag(), values + i);
  }
}

template <class Codec>
void quantize_blocks(const QuantizeJob& job) {
  auto* const floats = static_cast<float*>(job.scales);
  auto* const packed = static_cast<std::uint32_t*>(job.scales);
  std::uint32_t word_of_four = 0;
  for (std::size_t i = 0; i < job.num_blocks; ++i) {
    const std::uint8_t* const block = job.source + i * kBlock * Codec::kBytes;
    const BlockScale scale = block_scale(largest_magnitude<Codec>(block), job.format);
    quantize_block<Codec>(block, scale.inverse, job.values + i * kBlock);
    if (job.format != ScaleFormat::kPackedUE8M0) {
      floats[i] = scale.stored;
      continue;
    }
    word_of_four = (i % 4 == 0 ? 0u : word_of_four) | ue8m0_byte(scale.stored) << (i % 4 * 8);
    packed[i / 4] = word_of_four;
  }
}

void quantize_row_on_target(const QuantizeJob& job) {
  switch (job.source_dtype) {
    case DType::kBFloat16:
      return quantize_blocks<BFloat16>(job);
    case DType::kFloat16:
      return quantize_blocks<Float16>(job);
    default:
      MOELINK_INVARIANT(job.source_dtype == DType::kFloat32);
      quantize_blocks<Float32>(job);
  }
}

template <class Codec>
void dequantize_blocks(const DequantizeJob& job) {
  for (std::size_t channel = 0; channel < job.num_blocks * kBlock; channel += kLanes) {
    const auto scale = hn::Set(FloatTag(), job.scales[channel / kBlock]);
    const auto bytes = hn::LoadU(ByteTag(), job.values + channel);
    const Floats value = from_e4m3(as_words(hn::PromoteTo(IntTag(), bytes)));
    Codec::store(canonical_nan(hn::Mul(value, scale)), job.destination + channel * Codec::kBytes);
  }
}

void dequantize_row_on_target(const DequantizeJob& job) {
  switch (job.destination_dtype) {
    case DType::kBFloat16:
      return dequantize_blocks<BFloat16>(job);
    case DType::kFloat16:
      return dequantize_blocks<Float16>(job);
    default:
      MOELINK_INVARIANT(job.destination_dtype == DType::kFloat32);
      dequantize_blocks<Float32>(job);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace moelink::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moelink::simd {

HWY_EXPORT(quantize_row_on_target);
HWY_EXPORT(dequantize_row_on_target);

void quantize_row(const void* source, DType source_dtype, std::size_t num_channels,
                  ScaleFormat format, std::uint8_t* values, void* scales) {
  MOELINK_INVARIANT(num_channels % kScaleBlock == 0);
  apply_environment_limit();
  HWY_DYNAMIC_DISPATCH(quantize_row_on_target)
  (QuantizeJob{static_cast<const std::uint8_t*>(source), source_dtype, num_channels / kScaleBlock,
               format, values, scales});
}

void dequantize_row(const std::uint8_t* values, const float* scales, std::size_t num_channels,
                    void* destination, DType destination_dtype) {
  MOELINK_INVARIANT(num_channels % kScaleBlock == 0);
  apply_environment_limit();
  HWY_DYNAMIC_DISPATCH(dequantize_row_on_target)
  (DequantizeJob{values, scales, num_channels / kScaleBlock,
                 static_cast<std::uint8_t*>(destination), destination_dtype});
}

}  // namespace moelink::simd
#endif
