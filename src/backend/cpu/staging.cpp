// Lays out a staging area and fills its slots.
#include "backend/cpu/staging.hpp"

#include <algorithm>

#include "backend/cpu/simd/simd.hpp"
#include "base/check.hpp"

namespace moelink {

StagingArea::StagingArea(CpuContext& context, const RoutingState& state, const TensorView& x,
                         std::uint32_t num_chunks)
    : context_(context),
      state_(state),
      x_(x),
      row_bytes_(static_cast<std::size_t>(x.shape[1]) * dtype_size(x.dtype)),
      num_chunks_(num_chunks) {
  const auto num_ranks = static_cast<std::size_t>(state.num_ranks);
  std::vector<std::int32_t> first_row(num_ranks + 1);
  for (Rank source(0); source.value() < state.num_ranks; source = source.next()) {
    std::int64_t most = 0;
    for (std::uint32_t chunk = 0; chunk < num_chunks; ++chunk) {
      const IndexRange rows = rows_of(source, chunk);
      most = std::max(most, rows.end - rows.begin);
    }
    first_row[source.index() + 1] = first_row[source.index()] + static_cast<std::int32_t>(most);
  }
  table_ = StagingTable{first_row.data(), state.num_ranks};
  const std::size_t num_slots = std::min(num_chunks, kNumStagingSlots);
  const std::size_t bytes = table_.slots_offset() + num_slots * table_.slot_bytes(row_bytes_);
  owner_ = context.arena->allocate(bytes);
  auto* const base = static_cast<std::byte*>(owner_.get());
  slots_ = base + table_.slots_offset();
  table_.first_row = reinterpret_cast<std::int32_t*>(base);
  std::ranges::copy(first_row, table_.first_row);
  span_ = WireSpan{context.arena->offset_of(base), bytes};
}

IndexRange StagingArea::rows_of(Rank source, std::uint32_t chunk) const {
  const CountMatrix counts = state_.count_matrix();
  const std::int64_t block = counts.tokens_before(source, context_.rank);
  const auto* const tokens = state_.recv_src_token.view.as<std::int32_t>() + block;
  const auto* const tokens_end = tokens + counts.tokens(source, context_.rank);
  const std::int64_t num_tokens = state_.tokens_of_rank[source.index()];
  const auto row_at = [&](std::uint32_t c) {
    const std::int64_t token = chunk_begin(num_tokens, c, num_chunks_);
    return block + (std::lower_bound(tokens, tokens_end, token) - tokens);
  };
  return IndexRange{row_at(chunk), row_at(chunk + 1)};
}

void StagingArea::fill(std::uint32_t chunk, int num_workers) {
  std::byte* const slot = slots_ + chunk % kNumStagingSlots * table_.slot_bytes(row_bytes_);
  for (Rank source(0); source.value() < state_.num_ranks; source = source.next()) {
    const IndexRange rows = rows_of(source, chunk);
    std::byte* const out =
        slot + static_cast<std::size_t>(table_.first_row[source.index()]) * row_bytes_;
    context_.workers.run(rows.end - rows.begin, num_workers, [&](IndexRange part) {
      for (std::int64_t i = part.begin; i < part.end; ++i) {
        stage_row(rows.begin + i, out + static_cast<std::size_t>(i) * row_bytes_);
      }
    });
  }
}

void StagingArea::stage_row(std::int64_t recv_row, std::byte* out) const {
  const auto source_row = [this](std::int64_t row) {
    return x_.as<std::byte>() + static_cast<std::size_t>(row) * row_bytes_;
  };
  if (state_.layout == Layout::kCompact) {
    void* const destination = out;
    simd::copy_row(source_row(recv_row), {&destination, 1}, row_bytes_, simd::StorePolicy::kCached);
    return;
  }
  simd::Addend addends[kMaxTopk];
  std::size_t count = 0;
  const auto* rows = state_.recv_expert_row.view.as<std::int32_t>() + recv_row * state_.num_topk;
  for (int k = 0; k < state_.num_topk; ++k) {
    if (rows[k] != kNoRow) addends[count++] = {source_row(rows[k]), 0};
  }
  simd::reduce_row({.dtype = x_.dtype,
                    .num_channels = static_cast<std::size_t>(x_.shape[1]),
                    .addends = {addends, count},
                    .out = out});
}

}  // namespace moelink
