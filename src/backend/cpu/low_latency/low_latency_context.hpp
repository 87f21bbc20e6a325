// What the low latency operations of one CPU buffer share.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "backend/cpu/cpu_context.hpp"
#include "moelink/low_latency.hpp"
#include "protocol/low_latency_layout.hpp"

namespace moelink {

// The area is opened by the first operation of a shape, collectively, and kept for later ones.
// Everything is used on the stream, except num_outstanding.
struct LowLatencyContext {
  LowLatencyArea area;
  std::shared_ptr<void> block;              // null while no area is open
  std::vector<std::uint64_t> base_of_rank;  // offset of each rank's area in its region

  // Copies of the outboxes of ranks of other nodes, by rank; both halves.
  std::vector<std::unique_ptr<std::byte[]>> far_outboxes;

  Operation operation = Operation::kLowLatencyDispatch;  // that runs now, or ran last

  Epoch epoch;        // of the last operation
  Epoch first_epoch;  // of the first operation on this area
  Epoch void_epoch;   // operations up to this one can no longer be received
  // Last operation of each half that this rank has received.
  std::array<Epoch, kNumLowLatencyHalves> received{};
  // Shared with the operations, which may outlive the buffer.
  std::shared_ptr<std::atomic<int>> num_outstanding = std::make_shared<std::atomic<int>>(0);

  Tensor combine_area;       // of low_latency_combine_buffer()
  Epoch combine_area_epoch;  // operation for which it was handed out

  // Where all ranks do it: the next operation opens another area.
  void give_up_area() { void_epoch = epoch; }
  bool is_given_up() const { return first_epoch <= void_epoch; }

  // Address in the region of a near rank.
  std::byte* at(const CpuContext& context, Rank rank, std::size_t offset) const {
    return context.control->memory().region(rank) + base_of_rank[rank.index()] + offset;
  }
  // The copy of the outbox of a rank of another node: rows of row_stride() bytes, by token.
  std::byte* far_outbox(Rank rank, Epoch of_epoch) const {
    const std::size_t half = of_epoch.value() % kNumLowLatencyHalves;
    return far_outboxes[rank.index()].get() +
           half * static_cast<std::size_t>(area.max_tokens) * area.row_stride();
  }
};

// One operation from its send to its receive; more than kMaxOutstandingLowLatency at a time throw
// Error(kInvalidArgument).
class OutstandingSlot {
 public:
  OutstandingSlot(LowLatencyContext& low_latency, Rank rank, Operation operation);
  ~OutstandingSlot();
  OutstandingSlot(const OutstandingSlot&) = delete;
  OutstandingSlot& operator=(const OutstandingSlot&) = delete;

 private:
  std::shared_ptr<std::atomic<int>> count_;
};

// Collective among the unmasked ranks when the shape differs from that of the open area. Ranks
// whose shapes differ, or of which some are in an operation on the open area, all throw
// Error(kInvalidArgument) that names the values.
void ensure_area(CpuContext& context, LowLatencyContext& low_latency, const LowLatencyArea& area);

// Begins the next operation. Throws Error(kInvalidArgument) while this rank has not received its
// last operation on the same half. Waits until every unmasked peer has received the last operation
// that used the same half, and returns the new epoch.
Epoch begin_low_latency(CpuContext& context, LowLatencyContext& low_latency, Operation operation);

// Waits for `peer`'s message of `epoch`. False if the peer is masked, or has been masked now
// because it was lost and the buffer masks lost ranks; without that, throws as SignalBoard::wait
// does. Throws Error(kInvalidArgument) if the peer has made another call instead. `wait_cost`:
// int64 [R], may be null; the nanoseconds waited are added.
bool await_message(CpuContext& context, Rank peer, Epoch epoch, Operation operation,
                   std::int64_t* wait_cost);

// The header of `source`'s message in this rank's area.
LowLatencyHeader& header_of(const CpuContext& context, const LowLatencyContext& low_latency,
                            Epoch epoch, Rank source);

// Ends an operation: tells all peers whose message has arrived that it has been read.
void acknowledge(CpuContext& context, LowLatencyContext& low_latency, Epoch epoch,
                 const std::vector<bool>& arrived);

// Checks what the peers' messages claim against `mine`. If they differ, acknowledges and throws
// Error(kInvalidArgument) naming the ranks; all ranks find a difference then.
void check_messages(CpuContext& context, LowLatencyContext& low_latency,
                    const LowLatencyHeader& mine, const std::vector<bool>& arrived);

}  // namespace moelink
