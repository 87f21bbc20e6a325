// reduce_row: sums addends block by block, with the sums of all levels in registers.
#include <algorithm>
#include <cstring>

#include "backend/cpu/simd/highway_setup.hpp"
#include "backend/cpu/simd/simd.hpp"
#include "backend/cpu/simd/targets.hpp"
#include "base/check.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/simd/reduce.cpp"
#include "hwy/foreach_target.h"

#include "backend/cpu/simd/codec-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace moelink::simd {
namespace HWY_NAMESPACE {

// Rows are not prefetched by instructions: measured with up to 9 rows out of cache (Zen 4,
// bench/simd_bench.cpp), the hardware's own prefetching is as fast or faster.
template <std::size_t kPairs>
struct Sums {
  Pair pairs[kPairs];
};

template <std::size_t kPairs>
HWY_INLINE void clear(Sums<kPairs>& sums) {
#pragma GCC unroll 8
  for (Pair& pair : sums.pairs) pair = {hn::Zero(FloatTag()), hn::Zero(FloatTag())};
}

template <std::size_t kPairs>
HWY_INLINE void add(Sums<kPairs>& sums, std::size_t i, Pair addend) {
  sums.pairs[i].first = hn::Add(sums.pairs[i].first, addend.first);
  sums.pairs[i].second = hn::Add(sums.pairs[i].second, addend.second);
}

template <class Codec, std::size_t kPairs>
HWY_INLINE void add_row(Sums<kPairs>& sums, const std::uint8_t* row) {
#pragma GCC unroll 8
  for (std::size_t i = 0; i < kPairs; ++i) {
    add(sums, i, Codec::load_pair(row + i * kPairChannels * Codec::kBytes));
  }
}

// Ends a level: its rounded sums join the level above.
template <class Codec, std::size_t kPairs>
HWY_INLINE void close(Sums<kPairs>& sums, Sums<kPairs>& above) {
#pragma GCC unroll 8
  for (std::size_t i = 0; i < kPairs; ++i) {
    add(above, i, {Codec::round(sums.pairs[i].first), Codec::round(sums.pairs[i].second)});
  }
  clear(sums);
}

HWY_INLINE const std::uint8_t* at(const void* row, std::size_t offset) {
  return static_cast<const std::uint8_t*>(row) + offset;
}

// Finds a block in each row.
struct BlockReader {
  std::size_t offset;

  HWY_INLINE const std::uint8_t* operator()(const void* row) const { return at(row, offset); }
};

// Copies the last few channels of each row to a place where a whole block can be loaded.
template <std::size_t kBytes>
struct TailReader {
  std::size_t offset;
  std::size_t bytes;
  alignas(64) std::uint8_t padded[kBytes] = {};

  HWY_INLINE const std::uint8_t* operator()(const void* row) {
    std::memcpy(padded, at(row, offset), bytes);
    return padded;
  }
};

// Sums kPairs pairs of channels of every row.
template <class Codec, std::size_t kLevels, std::size_t kPairs, class Reader>
HWY_INLINE Sums<kPairs> sum_block(const ReduceJob& job, Reader& reader) {
  Sums<kPairs> sums[kLevels];
#pragma GCC unroll 4
  for (Sums<kPairs>& level : sums) clear(level);
  // An absent bias counts as +0.
  if (job.bias_0 != nullptr) add_row<Codec>(sums[0], reader(job.bias_0));
  if (job.bias_1 != nullptr) add_row<Codec>(sums[0], reader(job.bias_1));
  for (const Addend& addend : job.addends) {
    add_row<Codec>(sums[kLevels - 1], reader(addend.row));
    if constexpr (kLevels > 1) {
      if (addend.closes >= 1) close<Codec>(sums[kLevels - 1], sums[kLevels - 2]);
    }
    if constexpr (kLevels > 2) {
      if (addend.closes >= 2) close<Codec>(sums[1], sums[0]);
    }
  }
  return sums[0];
}

template <class Codec, StorePolicy kPolicy, std::size_t kPairs>
HWY_INLINE void store_sums(const Sums<kPairs>& sums, std::uint8_t* to) {
#pragma GCC unroll 8
  for (std::size_t i = 0; i < kPairs; ++i) {
    Codec::template store_pair<kPolicy>(sums.pairs[i], to + i * kPairChannels * Codec::kBytes);
  }
}

// Reduces as many whole blocks as the row has; returns where it stopped, in bytes.
template <class Codec, std::size_t kLevels>
std::size_t reduce_blocks(const ReduceJob& job, std::size_t bytes) {
  constexpr std::size_t kPairs = Codec::kReducePairs;
  constexpr std::size_t kBytes = kPairs * kPairChannels * Codec::kBytes;
  auto* const out = static_cast<std::uint8_t*>(job.out);
  const bool stream =
      job.policy == StorePolicy::kStreaming && reinterpret_cast<std::uintptr_t>(job.out) % 64 == 0;
  std::size_t offset = 0;
  for (; offset + kBytes <= bytes; offset += kBytes) {
    BlockReader reader{offset};
    const Sums<kPairs> sums = sum_block<Codec, kLevels, kPairs>(job, reader);
    if (stream) {
      store_sums<Codec, StorePolicy::kStreaming>(sums, out + offset);
    } else {
      store_sums<Codec, StorePolicy::kCached>(sums, out + offset);
    }
  }
  return offset;
}

// Channels that do not fill a block: at most a pair of vectors at a time.
template <class Codec, std::size_t kLevels>
void reduce_piece(const ReduceJob& job, std::size_t offset, std::size_t bytes) {
  TailReader<kPairChannels * Codec::kBytes> reader{offset, bytes};
  const Sums<1> sums = sum_block<Codec, kLevels, 1>(job, reader);
  store_sums<Codec, StorePolicy::kCached>(sums, reader.padded);
  std::memcpy(static_cast<std::uint8_t*>(job.out) + offset, reader.padded, bytes);
}

template <class Codec, std::size_t kLevels>
void reduce_levels(const ReduceJob& job) {
  constexpr std::size_t kPieceBytes = kPairChannels * Codec::kBytes;
  const std::size_t bytes = job.num_channels * Codec::kBytes;
  for (std::size_t at = reduce_blocks<Codec, kLevels>(job, bytes); at < bytes; at += kPieceBytes) {
    reduce_piece<Codec, kLevels>(job, at, std::min(kPieceBytes, bytes - at));
  }
}

template <class Codec>
void reduce_elements(const ReduceJob& job) {
  std::uint32_t deepest = 0;
  for (const Addend& addend : job.addends) deepest = std::max(deepest, addend.closes);
  MOELINK_INVARIANT(deepest <= 2);
  if (deepest == 0) return reduce_levels<Codec, 1>(job);
  if (deepest == 1) return reduce_levels<Codec, 2>(job);
  reduce_levels<Codec, 3>(job);
}

void reduce_row_on_target(const ReduceJob& job) {
  switch (job.dtype) {
    case DType::kBFloat16:
      return reduce_elements<BFloat16>(job);
    case DType::kFloat16:
      return reduce_elements<Float16>(job);
    default:
      MOELINK_INVARIANT(job.dtype == DType::kFloat32);
      reduce_elements<Float32>(job);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace moelink::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moelink::simd {

HWY_EXPORT(reduce_row_on_target);

void reduce_row(const ReduceJob& job) {
  apply_environment_limit();
  HWY_DYNAMIC_DISPATCH(reduce_row_on_target)(job);
}

}  // namespace moelink::simd
#endif
