// Staging area of a combine whose rows do not lie in symmetric memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "backend/cpu/cpu_context.hpp"
#include "backend/routing_state.hpp"
#include "protocol/control_layout.hpp"
#include "protocol/staging_plan.hpp"

namespace moelink {

// Two slots of rows, each split into one part per receiving rank; a table of the parts' first rows
// comes first (see protocol/staging_plan.hpp). Slot c % 2 holds chunk c: for every rank, the rows
// of its tokens in that chunk, in token order, the rows of several local experts already added up.
class StagingArea {
 public:
  // `x`: rows of this rank in dispatch order. Throws Error(kInvalidArgument) if the arena is full.
  StagingArea(CpuContext& context, const RoutingState& state, const TensorView& x,
              std::uint32_t num_chunks);

  WireSpan span() const { return span_; }
  void fill(std::uint32_t chunk, int num_workers);
  const std::shared_ptr<void>& owner() const { return owner_; }

 private:
  void stage_row(std::int64_t recv_row, std::byte* out) const;
  // Compact rows of `source` in chunk `chunk`: [first, second).
  IndexRange rows_of(Rank source, std::uint32_t chunk) const;

  CpuContext& context_;
  const RoutingState& state_;
  TensorView x_;
  std::size_t row_bytes_;
  std::uint32_t num_chunks_;
  StagingTable table_;
  std::shared_ptr<void> owner_;
  std::byte* slots_ = nullptr;
  WireSpan span_{};
};

}  // namespace moelink
