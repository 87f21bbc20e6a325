// Signal words: how a rank tells a peer how far it has come.
#pragma once

#include <cstddef>
#include <cstdint>

#include "moelink/host_device.hpp"
#include "moelink/types.hpp"

namespace moelink {

// A word per (channel, source rank) lies in the region of the rank that waits for it. Only the
// source writes it, with release order; the waiting rank reads it with acquire order.
enum class SignalChannel {
  kExchanged,       // the source's exchange block of this epoch is complete
  kDelivered,       // the source's rows are in this rank's receive block
  kStaged,          // progress: chunks of rows that the source has staged for this rank
  kConsumed,        // progress: chunks that the source has read from this rank
  kMasksPublished,  // progress: round of the agreement on masks
  kLowLatencySent,  // the source's low latency message of this epoch is complete
  // The source has read this rank's low latency message of this epoch; a word for each half, as
  // operations may be received in another order than they were sent.
  kLowLatencyReceivedEven,
  kLowLatencyReceivedOdd,
  kReturning,   // the source waits for all ranks to count on from the same operation; see
                // reunion.hpp
  kReturnSeen,  // the source has seen this rank's word on kReturning: that word
};

inline constexpr int kNumSignalChannels = 10;

// Words grow for ever: the epoch in the upper bits, progress inside the operation in the lower
// ones. A wait is over once the word has reached its value, so a word is never reset.
class SignalValue {
 public:
  static constexpr int kProgressBits = 16;
  static constexpr std::uint32_t kMaxProgress = (1U << kProgressBits) - 1;

  MOELINK_HD static constexpr SignalValue of(Epoch epoch, std::uint32_t progress) {
    return SignalValue((epoch.value() << kProgressBits) | progress);
  }
  MOELINK_HD constexpr explicit SignalValue(std::uint64_t word) : word_(word) {}

  MOELINK_HD constexpr std::uint64_t word() const { return word_; }
  MOELINK_HD constexpr Epoch epoch() const { return Epoch(word_ >> kProgressBits); }
  MOELINK_HD constexpr std::uint32_t progress() const {
    return static_cast<std::uint32_t>(word_) & kMaxProgress;
  }
  MOELINK_HD constexpr bool reached_by(std::uint64_t seen) const { return seen >= word_; }

 private:
  std::uint64_t word_;
};

inline constexpr std::uint32_t kDone = 1;  // progress of channels that fire once per epoch

}  // namespace moelink
