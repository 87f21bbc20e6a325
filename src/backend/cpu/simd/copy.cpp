// copy_row: reads each block of the row once and stores it to every destination.
#include <algorithm>
#include <cstring>

#include "backend/cpu/simd/highway_setup.hpp"
#include "backend/cpu/simd/simd.hpp"
#include "backend/cpu/simd/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/simd/copy.cpp"
#include "hwy/foreach_target.h"

#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moelink::simd {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using LongTag = hn::ScalableTag<std::uint64_t>;

constexpr std::size_t kLineBytes = 64;
constexpr std::size_t kVectorBytes = hn::MaxLanes(LongTag()) * sizeof(std::uint64_t);
constexpr std::size_t kLineVectors = kLineBytes / kVectorBytes;
// 256 bytes per destination before the next one's turn were fastest for 1 to 8 destinations (Zen 4,
// bench/simd_bench.cpp); 64 and 1024 bytes lost 10 to 25 %.
constexpr std::size_t kBlockVectors = std::min<std::size_t>(256 / kVectorBytes, 8);

struct Piece {
  std::size_t begin;
  std::size_t end;
};

template <StorePolicy kPolicy, std::size_t kVectors>
HWY_INLINE void store_block(const hn::Vec<LongTag> (&block)[kVectors], std::uint8_t* to) {
  auto* const longs = reinterpret_cast<std::uint64_t*>(to);
  constexpr std::size_t kLongs = hn::MaxLanes(LongTag());
#pragma GCC unroll 8
  for (std::size_t i = 0; i < kVectors; ++i) {
    if constexpr (kPolicy == StorePolicy::kStreaming) {
      hn::Stream(block[i], LongTag(), longs + i * kLongs);
    } else {
      hn::StoreU(block[i], LongTag(), longs + i * kLongs);
    }
  }
}

// Copies as many whole blocks as fit in the piece; returns where it stopped.
template <StorePolicy kPolicy, std::size_t kVectors>
std::size_t copy_blocks(const std::uint8_t* source, std::span<void* const> destinations,
                        Piece piece) {
  constexpr std::size_t kBytes = kVectors * kVectorBytes;
  constexpr std::size_t kLongs = hn::MaxLanes(LongTag());
  std::size_t at = piece.begin;
  for (; at + kBytes <= piece.end; at += kBytes) {
    hn::Vec<LongTag> block[kVectors];
    const auto* const longs = reinterpret_cast<const std::uint64_t*>(source + at);
#pragma GCC unroll 8
    for (std::size_t i = 0; i < kVectors; ++i) block[i] = hn::LoadU(LongTag(), longs + i * kLongs);
    for (void* const to : destinations) {
      store_block<kPolicy>(block, static_cast<std::uint8_t*>(to) + at);
    }
  }
  return at;
}

void copy_cached(const std::uint8_t* source, std::span<void* const> destinations, Piece piece) {
  for (void* const to : destinations) {
    std::memcpy(static_cast<std::uint8_t*>(to) + piece.begin, source + piece.begin,
                piece.end - piece.begin);
  }
}

// All destinations lie alike in their cache lines. Streams whole lines only: a line that is
// streamed in part costs a read from memory.
void copy_streaming(const std::uint8_t* source, std::span<void* const> destinations,
                    std::size_t bytes) {
  const std::size_t offset = reinterpret_cast<std::uintptr_t>(destinations[0]) % kLineBytes;
  const std::size_t head = std::min(bytes, (kLineBytes - offset) % kLineBytes);
  copy_cached(source, destinations, {0, head});
  std::size_t at =
      copy_blocks<StorePolicy::kStreaming, kBlockVectors>(source, destinations, {head, bytes});
  at = copy_blocks<StorePolicy::kStreaming, kLineVectors>(source, destinations, {at, bytes});
  copy_cached(source, destinations, {at, bytes});
}

bool lie_alike(std::span<void* const> destinations) {
  std::uintptr_t differing = 0;
  for (void* const to : destinations) {
    differing |=
        reinterpret_cast<std::uintptr_t>(to) ^ reinterpret_cast<std::uintptr_t>(destinations[0]);
  }
  return differing % kLineBytes == 0;
}

void copy_row_on_target(const std::uint8_t* source, std::span<void* const> destinations,
                        std::size_t bytes, StorePolicy policy) {
  if (policy == StorePolicy::kCached) {
    copy_cached(source, destinations, {0, bytes});
  } else if (lie_alike(destinations)) {
    copy_streaming(source, destinations, bytes);
  } else {
    for (std::size_t i = 0; i < destinations.size(); ++i) {
      copy_streaming(source, destinations.subspan(i, 1), bytes);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace moelink::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moelink::simd {

HWY_EXPORT(copy_row_on_target);

void copy_row(const void* source, std::span<void* const> destinations, std::size_t bytes,
              StorePolicy policy) {
  if (destinations.empty() || bytes == 0) return;
  apply_environment_limit();
  HWY_DYNAMIC_DISPATCH(copy_row_on_target)
  (static_cast<const std::uint8_t*>(source), destinations, bytes, policy);
}

void streaming_fence() { hwy::FlushStream(); }

}  // namespace moelink::simd
#endif
