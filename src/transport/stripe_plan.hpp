// How a put is divided among several NICs.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "protocol/arrival.hpp"

namespace moelink {

inline constexpr std::size_t kStripeAlignment = 256;  // where pieces may begin

struct StripeRange {
  std::size_t offset = 0;
  std::size_t bytes = 0;
};

// A power of two of ranges that together are [0, bytes), equal but for the alignment.
struct StripePlan {
  std::size_t bytes = 0;
  std::uint32_t log2_pieces = 0;

  std::size_t num_pieces() const { return std::size_t{1} << log2_pieces; }
  StripeRange piece(std::size_t index) const {
    const std::size_t even = (bytes >> log2_pieces) / kStripeAlignment * kStripeAlignment;
    const std::size_t offset = even * index;
    return {offset, index + 1 == num_pieces() ? bytes - offset : even};
  }
};

struct StripeLimits {
  std::size_t num_nics = 1;
  std::size_t min_piece_bytes = 0;
  std::uint32_t log2_pieces_so_far = 0;  // of the put that this one is a piece of
};

inline StripePlan plan_stripes(std::size_t bytes, const StripeLimits& limits) {
  const std::size_t smallest = std::max(limits.min_piece_bytes, kStripeAlignment);
  const std::size_t most = std::max<std::size_t>(1, std::min(limits.num_nics, bytes / smallest));
  const auto log2_pieces = static_cast<std::uint32_t>(std::bit_width(most) - 1);
  return {bytes, std::min(log2_pieces, kMaxLog2Pieces - limits.log2_pieces_so_far)};
}

}  // namespace moelink
