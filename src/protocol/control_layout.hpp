// Byte map of the control area at the start of every rank's region.
#pragma once

#include <cstddef>
#include <cstdint>

#include "moelink/host_device.hpp"
#include "moelink/types.hpp"
#include "protocol/call_digest.hpp"
#include "protocol/counts.hpp"
#include "protocol/limits.hpp"
#include "protocol/signal.hpp"

namespace moelink {

// Why a rank no longer takes part; written once by the region's owner, read by waiting peers.
struct FaultRecord {
  static constexpr std::size_t kMaxText = 496;

  std::uint32_t raised;  // 0 until the rest is complete (release), then 1
  std::uint32_t text_bytes;
  Epoch first_missed;  // the first operation in which the owner does not do its part
  char text[kMaxText];
};

// Wakes a sleeping owner. Several ranks write it, since it carries no information of its own: the
// owner looks at the signal words after each ring.
struct Doorbell {
  std::uint32_t rings;  // futex word
  // Written by the owner only: 0 while it is awake, else 1 + the row of the signal word for which
  // it sleeps. Only that word's writer wakes it: with fewer cores than ranks, needless wake-ups
  // cost more than the signals themselves.
  std::uint32_t awaited;
};

struct WireSpan {
  std::uint64_t offset;  // from the start of the sender's region
  std::uint64_t bytes;
};

// How a rank gives out the rows that combine reads.
enum class CombineSource : std::uint64_t {
  kInPlace,  // the tensor itself lies in symmetric memory
  kStaged,   // chunks of rows pass through a staging area
};

inline constexpr std::uint64_t kUnlimitedRows = ~std::uint64_t{0};

// What one rank tells a peer at the start of an operation; the count row follows it in memory.
struct ExchangeBlock {
  CallDigest digest;
  std::uint64_t num_tokens;  // T of the source
  std::uint64_t max_rows;    // rows that its receive tensors can take; kUnlimitedRows: any
  // Of the last low latency operation that the source has begun; set when an area is opened.
  Epoch low_latency_epoch;
  CombineSource source;
  // Dispatch: the two places offered for the receive block (expected, largest).
  // Combine: the tensor or the staging area, and the weights; bytes 0: nothing there.
  WireSpan spans[2];
  // A selection of the source's top-k list that is no expert: 1 + its index in the list; 0: none.
  // Set where the list is first read after the call has begun.
  std::int64_t bad_selection;
  std::int64_t bad_id;

  // max_rows as a handle keeps it; 0: any.
  MOELINK_HD constexpr std::int64_t row_limit() const {
    return max_rows == kUnlimitedRows ? 0 : static_cast<std::int64_t>(max_rows);
  }
};

// Exchange blocks exist twice. A rank writes the blocks of epoch e only after all peers have begun
// epoch e-1, hence finished reading those of epoch e-2, which lie in the same place.
inline constexpr std::size_t kNumExchangeHalves = 2;

struct ControlLayout {
  int num_ranks = 0;
  int max_num_experts = 0;

  static constexpr std::size_t kLine = 64;

  MOELINK_HD static constexpr std::size_t fault_offset() { return 0; }
  MOELINK_HD static constexpr std::size_t doorbell_offset() {
    return align_up(sizeof(FaultRecord), kLine);
  }
  MOELINK_HD static constexpr std::size_t signals_offset() { return doorbell_offset() + kLine; }

  MOELINK_HD constexpr std::size_t signal_row(SignalChannel channel, Rank source) const {
    return static_cast<std::size_t>(channel) * static_cast<std::size_t>(num_ranks) + source.index();
  }
  MOELINK_HD constexpr std::size_t signal_offset(SignalChannel channel, Rank source) const {
    return signals_offset() + signal_row(channel, source) * kLine;
  }
  MOELINK_HD constexpr std::size_t exchange_offset(Epoch epoch, Rank source) const {
    const std::size_t half = epoch.value() % kNumExchangeHalves;
    const std::size_t slot = half * static_cast<std::size_t>(num_ranks) + source.index();
    return exchanges_offset() + slot * exchange_bytes();
  }
  // One byte per rank: whether `source` has masked it.
  MOELINK_HD constexpr std::size_t mask_offset(Epoch epoch, Rank source, Rank rank) const {
    const std::size_t half = epoch.value() % kNumExchangeHalves;
    const std::size_t row = half * static_cast<std::size_t>(num_ranks) + source.index();
    return masks_offset() + row * mask_row_bytes() + rank.index();
  }
  MOELINK_HD constexpr std::size_t total_bytes() const {
    const auto ranks = static_cast<std::size_t>(num_ranks);
    return masks_offset() + kNumExchangeHalves * ranks * mask_row_bytes();
  }

 private:
  MOELINK_HD constexpr std::size_t exchanges_offset() const {
    const auto ranks = static_cast<std::size_t>(num_ranks);
    return signals_offset() + kNumSignalChannels * ranks * kLine;
  }
  MOELINK_HD constexpr std::size_t mask_row_bytes() const {
    return align_up(static_cast<std::size_t>(num_ranks), kLine);
  }
  MOELINK_HD constexpr std::size_t masks_offset() const {
    const auto ranks = static_cast<std::size_t>(num_ranks);
    return exchanges_offset() + kNumExchangeHalves * ranks * exchange_bytes();
  }
  MOELINK_HD constexpr std::size_t exchange_bytes() const {
    const std::size_t counts = CountMatrix::row_length(num_ranks, max_num_experts);
    return align_up(sizeof(ExchangeBlock) + counts * sizeof(std::int32_t), kLine);
  }
};

static_assert(sizeof(FaultRecord) == 512);
static_assert(sizeof(WireSpan) == 16);
static_assert(sizeof(ExchangeBlock) == kNumDigestFields * 8 + 80);
static_assert(sizeof(ExchangeBlock) % alignof(std::int32_t) == 0);

}  // namespace moelink
