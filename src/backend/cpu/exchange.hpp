// The exchange at the start of every operation: each rank tells every other what it is about to do.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/cpu/cpu_context.hpp"
#include "protocol/control_layout.hpp"

namespace moelink {

// What all ranks published, by rank; copied, so that it outlives the operation.
struct Exchange {
  std::vector<ExchangeBlock> blocks;
  std::vector<bool> present;         // false: masked, the block and the counts are zero
  std::vector<std::int32_t> counts;  // see CountMatrix; empty if no counts were published

  const ExchangeBlock& of(Rank rank) const { return blocks[rank.index()]; }
};

// Begins the next operation: publishes `mine` (and a count row, which may be empty), waits for the
// blocks of all ranks, and returns them. Afterwards the memory retired by the last operation is
// free. Throws Error(kInvalidArgument), alike at all ranks, naming ranks whose calls differ and in
// what.
Exchange exchange_calls(CpuContext& context, Operation operation, const ExchangeBlock& mine,
                        std::span<const std::int32_t> count_row);

}  // namespace moelink
