// Typed access to the control areas of all ranks.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "protocol/control_layout.hpp"
#include "symm/symmetric_memory.hpp"

namespace moelink {

// Words are shared between processes: all access to them is atomic, through std::atomic_ref.
class ControlArea {
 public:
  ControlArea(std::shared_ptr<SymmetricMemory> memory, const ControlLayout& layout)
      : memory_(std::move(memory)),
        layout_(layout),
        far_faults_(static_cast<std::size_t>(memory_->num_ranks())) {}

  const ControlLayout& layout() const { return layout_; }
  SymmetricMemory& memory() const { return *memory_; }
  Rank rank() const { return memory_->rank(); }
  int num_ranks() const { return memory_->num_ranks(); }
  // Whether this rank shares memory with `rank`. Of other ranks there are no words but those in the
  // own region.
  bool is_near(Rank rank) const { return memory_->region(rank) != nullptr; }

  // The word in `owner`'s region that `source` writes.
  std::atomic_ref<std::uint64_t> signal(Rank owner, SignalChannel channel, Rank source) const {
    return std::atomic_ref(*at<std::uint64_t>(owner, layout_.signal_offset(channel, source)));
  }
  Doorbell& doorbell(Rank owner) const {
    return *at<Doorbell>(owner, ControlLayout::doorbell_offset());
  }

  // The block in `owner`'s region that `source` fills for `epoch`, and the count row behind it.
  ExchangeBlock& exchange(Rank owner, Epoch epoch, Rank source) const {
    return *at<ExchangeBlock>(owner, layout_.exchange_offset(epoch, source));
  }
  std::int32_t* count_row(Rank owner, Epoch epoch, Rank source) const {
    const std::size_t offset = layout_.exchange_offset(epoch, source) + sizeof(ExchangeBlock);
    return at<std::int32_t>(owner, offset);
  }

  // Whether `source` has masked `rank`, as `owner` learns it in `epoch`: a bit for odd rounds of
  // the agreement and one for even rounds.
  std::atomic_ref<std::uint8_t> mask_flag(Rank owner, Epoch epoch, Rank source, Rank rank) const {
    return std::atomic_ref(*at<std::uint8_t>(owner, layout_.mask_offset(epoch, source, rank)));
  }

  // Publishes why this rank gives up and the first operation that it leaves undone; the first call
  // counts.
  void raise_fault(const std::string& reason, Epoch first_missed) const;
  // Why `rank` does not finish the operation of `epoch`, or an empty string while it takes part.
  std::string fault_of(Rank rank, Epoch epoch) const;
  // Keeps what a rank that is not near has sent of its fault; the own one, to be sent.
  void keep_fault(Rank rank, const FaultRecord& record) { far_faults_[rank.index()] = record; }
  const FaultRecord& own_fault() const { return record_of(rank()); }

 private:
  FaultRecord& record_of(Rank rank) const {
    return is_near(rank) ? *at<FaultRecord>(rank, ControlLayout::fault_offset())
                         : far_faults_[rank.index()];
  }
  template <class T>
  T* at(Rank owner, std::size_t offset) const {
    return reinterpret_cast<T*>(memory_->region(owner) + offset);
  }

  std::shared_ptr<SymmetricMemory> memory_;
  ControlLayout layout_;
  mutable std::vector<FaultRecord> far_faults_;  // by rank
};

}  // namespace moelink
