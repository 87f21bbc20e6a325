// The 32-bit immediate that travels with a counted put, and where its arrival is counted.
#pragma once

#include <cstddef>
#include <cstdint>

#include "moelink/host_device.hpp"
#include "moelink/types.hpp"
#include "protocol/limits.hpp"

namespace moelink {

// What a receiver waits for, apart from who sends it.
struct ArrivalKey {
  Epoch epoch;
  std::uint32_t counter = 0;
};

// A put may be carried in 1, 2, 4 or 8 pieces that arrive in any order. Each piece says how many
// there are and counts as that part of a put, so nobody needs to know beforehand how it was split.
inline constexpr std::uint32_t kMaxLog2Pieces = 3;
inline constexpr std::uint64_t kUnitsPerPut = std::uint64_t{1} << kMaxLog2Pieces;

class Immediate {
 public:
  static constexpr int kSourceBits = 10;
  static constexpr int kPiecesBits = 2;
  static constexpr int kCounterBits = 12;
  static constexpr int kEpochBits = 8;

  static constexpr std::uint32_t kMaxCounters = 1U << kCounterBits;
  static constexpr std::uint32_t kMaxEpochLanes = 1U << kEpochBits;

  MOELINK_HD static constexpr Immediate of(const ArrivalKey& key, Rank source,
                                           std::uint32_t log2_pieces = 0) {
    return Immediate(static_cast<std::uint32_t>(source.value()) | log2_pieces << kPiecesShift |
                     key.counter << kCounterShift |
                     (static_cast<std::uint32_t>(key.epoch.value()) & mask(kEpochBits))
                         << kEpochShift);
  }
  MOELINK_HD constexpr explicit Immediate(std::uint32_t word) : word_(word) {}

  MOELINK_HD constexpr std::uint32_t word() const { return word_; }
  MOELINK_HD constexpr Rank source() const {
    return Rank(static_cast<std::int32_t>(word_ & mask(kSourceBits)));
  }
  MOELINK_HD constexpr std::uint32_t log2_pieces() const {
    return (word_ >> kPiecesShift) & mask(kPiecesBits);
  }
  MOELINK_HD constexpr std::uint32_t counter() const {
    return (word_ >> kCounterShift) & mask(kCounterBits);
  }
  // The lowest bits of the epoch: epochs so many apart share their counters.
  MOELINK_HD constexpr std::uint32_t epoch_bits() const { return word_ >> kEpochShift; }
  MOELINK_HD constexpr std::uint64_t units() const { return kUnitsPerPut >> log2_pieces(); }

 private:
  static constexpr int kPiecesShift = kSourceBits;
  static constexpr int kCounterShift = kPiecesShift + kPiecesBits;
  static constexpr int kEpochShift = kCounterShift + kCounterBits;
  static_assert(kEpochShift + kEpochBits == 32);
  static_assert(kMaxRanks <= 1 << kSourceBits);
  static_assert(kMaxLog2Pieces < 1 << kPiecesBits);

  MOELINK_HD static constexpr std::uint32_t mask(int bits) { return (1U << bits) - 1; }

  std::uint32_t word_;
};
static_assert(sizeof(Immediate) == sizeof(std::uint32_t));

// Which counter of a receiver an immediate names. A counter belongs to one source, one counter
// number and one lane of epochs; it only grows. Epochs that share a lane add up, so whoever waits
// expects the sum over them, and a source may be at most num_epoch_lanes - 1 epochs ahead.
struct ArrivalLayout {
  std::uint32_t num_ranks = 0;
  std::uint32_t num_counters = 0;
  std::uint32_t num_epoch_lanes = 0;  // a power of two, at most Immediate::kMaxEpochLanes

  MOELINK_HD constexpr std::size_t num_words() const {
    return std::size_t{num_epoch_lanes} * num_counters * num_ranks;
  }
  MOELINK_HD constexpr bool contains(Immediate immediate) const {
    return static_cast<std::uint32_t>(immediate.source().value()) < num_ranks &&
           immediate.counter() < num_counters;
  }
  MOELINK_HD constexpr std::size_t index(Immediate immediate) const {
    const std::size_t lane = immediate.epoch_bits() & (num_epoch_lanes - 1);
    return (lane * num_counters + immediate.counter()) * num_ranks + immediate.source().index();
  }
};

}  // namespace moelink
