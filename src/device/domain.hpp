// What every kernel of a buffer knows: the ranks, their regions, and the state of its own rank.
#pragma once

#include <cstddef>
#include <cstdint>

#include "moelink/host_device.hpp"
#include "moelink/topology.hpp"
#include "moelink/trace.hpp"
#include "moelink/types.hpp"
#include "protocol/control_layout.hpp"
#include "protocol/receive_layout.hpp"
#include "protocol/staging_plan.hpp"

namespace moelink::device {

enum class FaultCause : std::uint32_t {
  kTimeout,
  kPeerGaveUp,
  kCancelled,
  kRefused,  // the ranks' calls do not fit, in an operation for whose exchange no host waits
};

// The first wait of this rank that failed. Pinned memory: a kernel fills it once, the host reads.
struct Fault {
  std::uint32_t raised;  // 0 until the rest is complete, then 1
  FaultCause cause;
  Operation operation;
  Stage stage;
  std::int32_t peer;
  Epoch epoch;
  std::uint64_t expected;  // signal word
  std::uint64_t seen;
};

// How waits of a kernel end when their word does not come.
struct WaitPolicy {
  std::uint64_t timeout_ns = 0;
  Fault* fault = nullptr;              // pinned
  std::uint32_t* cancelled = nullptr;  // pinned, written by the host: stop waiting
};

// How an operation goes on after its exchange.
enum class Verdict : std::uint32_t {
  kProceed = 1,
  kRefused,  // the calls cannot be carried out; all ranks find that out and none moves a row
  kGaveUp,   // a peer did not come
};

// Where a rank takes, or gives, the rows of one operation; addresses as mapped here.
struct PeerParts {
  std::byte* parts[kNumReceiveParts];
  CombineSource source;  // of a combine: kStaged: the payload is a ring, see StagingRing
  MOELINK_HD std::byte* part(ReceivePart which) const {
    return parts[static_cast<std::size_t>(which)];
  }
};

// Progress of this rank's kernels, which run one after another. Device memory, zero at first.
struct LocalState {
  std::uint64_t epoch;        // of the last operation completed; written by its last block
  std::uint32_t num_counted;  // blocks that have counted their tokens; reset by the last block
  std::uint32_t num_placed;   // blocks that have placed their tokens; reset by the last block
  std::uint32_t num_done;     // blocks that have moved their rows; reset by the last block
  std::uint64_t exchanged;    // epoch whose exchange has ended; block 0 releases, others acquire
  Verdict verdict;            // of that exchange
  // 0, or the complement of the lowest index of a selection that is no expert.
  unsigned long long bad_selection;
  std::uint32_t fault_is_claimed;   // 1 once a thread fills the fault
  std::uint64_t next_host_look_ns;  // when a wait looks after the host again, see is_cancelled()
  // Of a combine, written by block 0 before it releases the others; 0 chunks: no rank stages.
  StagingRing ring;
  // Blocks that have staged, or read, the chunk in each slot; reset by the last to come.
  std::uint32_t num_staged[StagingRing::kNumSlots];
  std::uint32_t num_consumed[StagingRing::kNumSlots];
};

struct Domain {
  Rank rank;
  Topology topology;
  ControlLayout control;
  std::byte* const* regions = nullptr;  // [R], device memory
  LocalState* local = nullptr;
  PeerParts* peers = nullptr;        // [R], device memory: written by block 0 for the others
  std::int32_t* partials = nullptr;  // [blocks, R + E], device memory: what each block has counted
  // [E], device memory: where this rank's selections of each expert begin at the expert's rank.
  std::int32_t* expert_base = nullptr;
  std::int32_t* group_start = nullptr;  // [L], device memory: first row of each own expert
  std::int64_t* num_rows = nullptr;     // device memory: rows of the own experts, padding included
  WaitPolicy wait;
  // [kNumStages] in device memory, or null: nanoseconds at which stages have ended, see
  // pass_stage.cuh.
  std::uint64_t* stage_ends = nullptr;
  // Longest random delay of a block at each stage; 0: none.
  std::uint64_t stress_delay_ns = 0;

  MOELINK_HD int num_ranks() const { return topology.num_ranks; }
  MOELINK_HD std::byte* region(Rank of) const { return regions[of.index()]; }
  // The word in `owner`'s region that `source` writes.
  MOELINK_HD std::uint64_t* signal(Rank owner, SignalChannel channel, Rank source) const {
    return reinterpret_cast<std::uint64_t*>(region(owner) + control.signal_offset(channel, source));
  }
  // The block in `owner`'s region that `source` fills for `epoch`; the count row follows it.
  MOELINK_HD ExchangeBlock* exchange(Rank owner, Epoch epoch, Rank source) const {
    return reinterpret_cast<ExchangeBlock*>(region(owner) + control.exchange_offset(epoch, source));
  }
  MOELINK_HD std::int32_t* count_row(Rank owner, Epoch epoch, Rank source) const {
    return reinterpret_cast<std::int32_t*>(exchange(owner, epoch, source) + 1);
  }
  MOELINK_HD FaultRecord* fault_record(Rank owner) const {
    return reinterpret_cast<FaultRecord*>(region(owner) + ControlLayout::fault_offset());
  }
};

}  // namespace moelink::device
