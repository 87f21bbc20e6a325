// Reads exchange blocks and staging tables.
#include "backend/cpu/pull_sources.hpp"

#include "protocol/placement.hpp"
#include "protocol/staging_plan.hpp"

namespace moelink {

PullSources::PullSources(const CpuContext& context, const RoutingState& state,
                         const Exchange& exchange, Rank owner, std::size_t row_bytes)
    : state_(state),
      topology_(context.topology),
      row_bytes_(row_bytes),
      sources_(exchange.blocks.size()) {
  const CountMatrix counts = state.count_matrix();
  for (Rank rank(0); rank.value() < context.num_ranks(); rank = rank.next()) {
    if (!exchange.present[rank.index()] || !context.control->is_near(rank)) continue;
    const ExchangeBlock& block = exchange.of(rank);
    std::byte* const region = context.control->memory().region(rank);
    Source& source = sources_[rank.index()];
    source.lost = false;
    source.kind = block.source;
    source.rows = region + block.spans[0].offset;
    source.weights = reinterpret_cast<const float*>(region + block.spans[1].offset);
    if (source.kind != CombineSource::kStaged) continue;
    const StagingTable table{reinterpret_cast<std::int32_t*>(region + block.spans[0].offset),
                             context.num_ranks()};
    source.rows += table.offset_of(owner, row_bytes_);
    source.slot_stride_bytes = table.slot_bytes(row_bytes_);
    source.chunk_first_row = compact_start(counts, owner, rank).value();
  }
}

void PullSources::list_pulls(const Placement& placement, std::int64_t token, Rank rank,
                             std::vector<Pull>& pulls) const {
  const std::int32_t row = placement.row_at(token, rank);
  if (row == kNoRow || is_lost(rank)) return;
  if (state_.layout == Layout::kCompact || !reads_in_place(rank)) {
    pulls.push_back(Pull{rank, 0, Row(row)});
    return;
  }
  for (int k = 0; k < placement.num_topk; ++k) {
    if (placement.owner_of(token, k) != rank.value()) continue;
    pulls.push_back(Pull{rank, 0, Row(placement.expert_row_of(token, k))});
  }
}

const void* PullSources::address_of(const Pull& pull, std::uint32_t chunk) const {
  const Source& source = sources_[pull.rank.index()];
  const std::int64_t row = pull.row.value() - source.chunk_first_row;
  return source.rows + chunk % kNumStagingSlots * source.slot_stride_bytes +
         static_cast<std::size_t>(row) * row_bytes_;
}

void PullSources::add_weights(const Placement& placement, std::int64_t token, Node node,
                              float* out) const {
  const int num_topk = placement.num_topk;
  for (int i = 0; i < topology_.ranks_per_node(); ++i) {
    const Rank rank = topology_.rank_at(node, LocalRank(i));
    const std::int64_t row = placement.row_at(token, rank);
    if (row == kNoRow || is_lost(rank)) continue;
    const float* const weights = sources_[rank.index()].weights;
    for (int k = 0; k < num_topk; ++k) {
      if (state_.layout == Layout::kCompact) {
        out[k] += weights[row * num_topk + k];
      } else if (placement.owner_of(token, k) == rank.value()) {
        out[k] += weights[placement.expert_row_of(token, k)];
      }
    }
  }
}

void PullSources::advance(const Placement& placement, IndexRange tokens) {
  for (Rank rank(0); rank.value() < placement.num_ranks; rank = rank.next()) {
    if (reads_in_place(rank)) continue;
    for (std::int64_t token = tokens.begin; token < tokens.end; ++token) {
      if (placement.row_at(token, rank) != kNoRow) ++sources_[rank.index()].chunk_first_row;
    }
  }
}

}  // namespace moelink
