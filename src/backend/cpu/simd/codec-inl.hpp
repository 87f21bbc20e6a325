// Element types as float32 vectors, on the SIMD target being compiled. Included once per target, so
// it has no guard.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "backend/cpu/simd/highway_setup.hpp"
#include "backend/cpu/simd/simd.hpp"

#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moelink::simd {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using WordTag = hn::ScalableTag<std::uint32_t>;
using IntTag = hn::ScalableTag<std::int32_t>;
using HalfTag = hn::Rebind<std::uint16_t, FloatTag>;  // as many lanes, half as wide
using ByteTag = hn::Rebind<std::uint8_t, FloatTag>;
using Floats = hn::Vec<FloatTag>;
using Words = hn::Vec<WordTag>;

constexpr std::size_t kLanes = hn::MaxLanes(FloatTag());
constexpr std::size_t kVectorBytes = kLanes * sizeof(float);

HWY_INLINE Words word(std::uint32_t value) { return hn::Set(WordTag(), value); }
HWY_INLINE Words bits_of(Floats value) { return hn::BitCast(WordTag(), value); }
HWY_INLINE Floats float_of(Words bits) { return hn::BitCast(FloatTag(), bits); }

// Both below 2^31.
HWY_INLINE hn::Mask<WordTag> less(Words a, Words b) {
  const IntTag d;
  return hn::RebindMask(WordTag(), hn::Lt(hn::BitCast(d, a), hn::BitCast(d, b)));
}

HWY_INLINE hn::Mask<WordTag> is_nan(Floats value) {
  return hn::RebindMask(WordTag(), hn::IsNaN(value));
}

// The NaN that GPUs convert to, so that backends agree bit for bit.
constexpr std::uint32_t kBFloat16NaN = 0x7fffu;
constexpr std::uint32_t kFloat16NaN = 0x7fffu;

// One NaN for all, because which payload an addition keeps differs between CPUs.
HWY_INLINE Floats canonical_nan(Floats value) {
  return float_of(hn::IfThenElse(is_nan(value), word(0x7fc00000u), bits_of(value)));
}

template <StorePolicy kPolicy>
HWY_INLINE void put_words(Words value, std::uint8_t* to) {
  auto* const words = reinterpret_cast<std::uint32_t*>(to);
  if constexpr (kPolicy == StorePolicy::kStreaming) {
    hn::Stream(value, WordTag(), words);
  } else {
    hn::StoreU(value, WordTag(), words);
  }
}

// `from` is aligned to its element type, which may be narrower than a word.
HWY_INLINE Words get_words(const std::uint8_t* from) {
  if constexpr (kLanes == 1) {
    std::uint32_t bits;
    std::memcpy(&bits, from, sizeof(bits));
    return word(bits);
  } else {
    return hn::LoadU(WordTag(), reinterpret_cast<const std::uint32_t*>(from));
  }
}

// Two vectors of channels, split as is cheapest: even and odd channels of a 16-bit type, the first
// and the second half of a 32-bit type.
struct Pair {
  Floats first;
  Floats second;
};

constexpr std::size_t kPairChannels = 2 * kLanes;

// What every codec offers: `load` and `store` of kLanes channels in memory order, `load_pair` and
// `store_pair` of kPairChannels, `round`, which rounds to the type and back, and `kReducePairs`:
// how many pairs of each row a reduction sums at a time. More is faster but for code size.
struct BFloat16 {
  static constexpr std::size_t kBytes = 2;
  static constexpr std::size_t kReducePairs = 4;

  // In the upper half of each word; the lower half is rubbish.
  static HWY_INLINE Words upper_half(Floats value) {
    const Words bits = bits_of(value);
    const Words odd = hn::And(hn::ShiftRight<16>(bits), word(1));
    const Words rounded = hn::Add(hn::Add(bits, word(0x7fffu)), odd);
    return hn::IfThenElse(is_nan(value), word(kBFloat16NaN << 16), rounded);
  }

  static HWY_INLINE Floats round(Floats value) {
    return float_of(hn::And(upper_half(value), word(0xffff0000u)));
  }

  static HWY_INLINE Pair load_pair(const std::uint8_t* from) {
    const Words both = get_words(from);
    return {float_of(hn::ShiftLeft<16>(both)), float_of(hn::And(both, word(0xffff0000u)))};
  }

  template <StorePolicy kPolicy>
  static HWY_INLINE void store_pair(Pair value, std::uint8_t* to) {
    const Words even = hn::ShiftRight<16>(upper_half(value.first));
    const Words odd = hn::And(upper_half(value.second), word(0xffff0000u));
    put_words<kPolicy>(hn::Or(even, odd), to);
  }

  static HWY_INLINE Floats load(const std::uint8_t* from) {
    const auto halves = hn::LoadU(HalfTag(), reinterpret_cast<const std::uint16_t*>(from));
    return float_of(hn::ShiftLeft<16>(hn::PromoteTo(WordTag(), halves)));
  }

  static HWY_INLINE void store(Floats value, std::uint8_t* to) {
    const auto low = hn::BitCast(IntTag(), hn::ShiftRight<16>(upper_half(value)));
    hn::StoreU(hn::DemoteTo(HalfTag(), low), HalfTag(), reinterpret_cast<std::uint16_t*>(to));
  }
};

// By integer arithmetic on every target: what Highway emulates where the CPU has no conversion
// does not treat NaN and infinity alike.
struct Float16 {
  static constexpr std::size_t kBytes = 2;
  static constexpr std::size_t kReducePairs = 1;

  // Of the lower half of each word; the upper half is 0.
  static HWY_INLINE Floats promote(Words half) {
    const Words magnitude = hn::ShiftLeft<13>(hn::And(half, word(0x7fffu)));
    const Words normal = hn::Add(magnitude, word(112u << 23));  // exponent bias 15 -> 127
    const Words subnormal = bits_of(
        hn::Sub(float_of(hn::Add(magnitude, word(113u << 23))), float_of(word(113u << 23))));
    const Words finite = hn::IfThenElse(less(magnitude, word(1u << 23)), subnormal, normal);
    const Words special = hn::Or(magnitude, word(0x7f800000u));  // infinity or NaN
    const Words value = hn::IfThenElse(less(magnitude, word(0x1fu << 23)), finite, special);
    return float_of(hn::Or(value, hn::ShiftLeft<16>(hn::And(half, word(0x8000u)))));
  }

  // In the lower half of each word; the upper half is 0.
  static HWY_INLINE Words demote(Floats value) {
    const Words bits = bits_of(value);
    const Words magnitude = hn::And(bits, word(0x7fffffffu));
    const Words odd = hn::And(hn::ShiftRight<13>(magnitude), word(1));
    // Subtracts 112 from the exponent, and adds half of the last place kept.
    const Words normal =
        hn::ShiftRight<13>(hn::Add(hn::Add(magnitude, word(0u - (112u << 23) + 0xfffu)), odd));
    // Adding 0.5 makes 2^-24, the step of subnormals, the last place: the addition rounds.
    const Words half = word(126u << 23);
    const Words subnormal = hn::Sub(bits_of(hn::Add(float_of(magnitude), float_of(half))), half);
    const Words finite = hn::IfThenElse(less(magnitude, word(113u << 23)), subnormal, normal);
    const Words bounded =
        hn::IfThenElse(less(magnitude, word(0x477ff000u)), finite, word(0x7c00u));  // 65520
    const Words sign = hn::ShiftRight<16>(hn::And(bits, word(0x80000000u)));
    return hn::IfThenElse(is_nan(value), word(kFloat16NaN), hn::Or(bounded, sign));
  }

  static HWY_INLINE Floats round(Floats value) { return promote(demote(value)); }

  static HWY_INLINE Pair load_pair(const std::uint8_t* from) {
    const Words both = get_words(from);
    return {promote(hn::And(both, word(0xffffu))), promote(hn::ShiftRight<16>(both))};
  }

  template <StorePolicy kPolicy>
  static HWY_INLINE void store_pair(Pair value, std::uint8_t* to) {
    put_words<kPolicy>(hn::Or(demote(value.first), hn::ShiftLeft<16>(demote(value.second))), to);
  }

  static HWY_INLINE Floats load(const std::uint8_t* from) {
    const auto halves = hn::LoadU(HalfTag(), reinterpret_cast<const std::uint16_t*>(from));
    return promote(hn::PromoteTo(WordTag(), halves));
  }

  static HWY_INLINE void store(Floats value, std::uint8_t* to) {
    const auto low = hn::BitCast(IntTag(), demote(value));
    hn::StoreU(hn::DemoteTo(HalfTag(), low), HalfTag(), reinterpret_cast<std::uint16_t*>(to));
  }
};

struct Float32 {
  static constexpr std::size_t kBytes = 4;
  static constexpr std::size_t kReducePairs = 2;

  static HWY_INLINE Floats round(Floats value) { return value; }

  static HWY_INLINE Pair load_pair(const std::uint8_t* from) {
    return {load(from), load(from + kVectorBytes)};
  }

  template <StorePolicy kPolicy>
  static HWY_INLINE void store_pair(Pair value, std::uint8_t* to) {
    put_words<kPolicy>(bits_of(canonical_nan(value.first)), to);
    put_words<kPolicy>(bits_of(canonical_nan(value.second)), to + kVectorBytes);
  }

  static HWY_INLINE Floats load(const std::uint8_t* from) { return float_of(get_words(from)); }

  static HWY_INLINE void store(Floats value, std::uint8_t* to) {
    put_words<StorePolicy::kCached>(bits_of(value), to);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace moelink::simd
HWY_AFTER_NAMESPACE();
