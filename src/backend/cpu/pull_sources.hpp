// Where the rows of one rank's tokens lie at the ranks that share memory with this one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend/cpu/cpu_context.hpp"
#include "backend/cpu/exchange.hpp"
#include "backend/routing_state.hpp"
#include "protocol/reduction_order.hpp"

namespace moelink {

// Of this rank's tokens, or of those that it carries for a rank of another node. Used chunk by
// chunk.
class PullSources {
 public:
  // `exchange`: of the combine; `owner`: of the tokens.
  PullSources(const CpuContext& context, const RoutingState& state, const Exchange& exchange,
              Rank owner, std::size_t row_bytes);

  bool reads_in_place(Rank rank) const {
    return sources_[rank.index()].kind == CombineSource::kInPlace;
  }
  bool is_lost(Rank rank) const { return sources_[rank.index()].lost; }
  void lose(Rank rank) { sources_[rank.index()].lost = true; }

  // Appends the rows of one token at `rank`, none if that is lost or not near.
  void list_pulls(const Placement& placement, std::int64_t token, Rank rank,
                  std::vector<Pull>& pulls) const;
  const void* address_of(const Pull& pull, std::uint32_t chunk) const;
  // Adds what the near ones of `node`'s ranks return of the top-k weights of one token to out[K].
  void add_weights(const Placement& placement, std::int64_t token, Node node, float* out) const;
  // The chunk is done with: the next one begins behind these tokens.
  void advance(const Placement& placement, IndexRange tokens);

 private:
  // Where the rows of one rank are read.
  struct Source {
    CombineSource kind = CombineSource::kInPlace;
    const std::byte* rows = nullptr;    // kInPlace: row 0; kStaged: the owner's part of slot 0
    std::size_t slot_stride_bytes = 0;  // kStaged: distance of the slots
    std::int64_t chunk_first_row = 0;   // kStaged: compact row at the start of the slot
    const float* weights = nullptr;
    bool lost = true;  // masked or not near: contributes nothing
  };

  const RoutingState& state_;
  Topology topology_;
  std::size_t row_bytes_;
  std::vector<Source> sources_;  // by rank
};

}  // namespace moelink
