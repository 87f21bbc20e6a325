// Movement of a dispatch: every row goes once from its token to its final places.
#include <algorithm>
#include <cstring>

#include "backend/cpu/dispatch.hpp"
#include "backend/cpu/simd/simd.hpp"
#include "base/trace_scope.hpp"
#include "protocol/placement.hpp"

namespace moelink {
namespace {

// Copies row `token` of a strided 2-D tensor of 1- or 4-byte elements to contiguous memory.
void gather_scales(const TensorView& scales, std::int64_t token, std::byte* out) {
  const std::size_t size = dtype_size(scales.dtype);
  const auto* row = scales.as<std::byte>() + token * scales.strides[0] * static_cast<int>(size);
  const std::int64_t step = scales.strides[1] * static_cast<int>(size);
  for (std::int64_t i = 0; i < scales.shape[1]; ++i) {
    std::memcpy(out + static_cast<std::size_t>(i) * size, row + i * step, size);
  }
}

}  // namespace

void DispatchOperation::finish() {
  {
    const TraceScope scope(call_.operation, Stage::kSend, context_.rank);
    context_.workers.run(call_.state->num_tokens, workers_for(context_, call_.inputs.stream),
                         [this](IndexRange tokens) { send_tokens(tokens); });
  }
  const SignalValue done = SignalValue::of(epoch_, kDone);
  {
    const TraceScope scope(call_.operation, Stage::kSignal, context_.rank);
    context_.signals->put_all(SignalChannel::kDelivered, done);
  }
  const TraceScope scope(call_.operation, Stage::kReceive, context_.rank);
  fill_unused_rows();
  for (Rank source(0); source.value() < context_.num_ranks(); source = source.next()) {
    const bool delivered =
        context_.signals->wait(source, SignalChannel::kDelivered, done,
                               context_.wait_context(call_.operation, Stage::kReceive));
    if (delivered) continue;
    clear_rows_of(source);
    // A rank that is late but alive may still write here: the memory is not used again.
    context_.quarantine.insert(context_.quarantine.end(), parts_.begin(), parts_.end());
  }
  context_.completed = epoch_;
  add_statistics();
  if (!call_.is_cached()) call_.keep_origins(own_block());
}

void DispatchOperation::gather_rows(std::int64_t token, ReceivePart part, std::size_t row_bytes,
                                    std::vector<void*>& rows) const {
  rows.clear();
  const auto place = [&](std::int32_t rank, std::int32_t row) {
    const Target& target = targets_[static_cast<std::size_t>(rank)];
    if (target.present)
      rows.push_back(target.part(part) + static_cast<std::size_t>(row) * row_bytes);
  };
  if (call_.state->layout == Layout::kCompact) {
    const std::int32_t* sent = call_.state->send_row.data() + token * call_.state->num_ranks;
    for (std::int32_t rank = 0; rank < call_.state->num_ranks; ++rank) {
      if (sent[rank] != kNoRow) place(rank, sent[rank]);
    }
    return;
  }
  for (std::int64_t i = token * call_.state->num_topk; i < (token + 1) * call_.state->num_topk;
       ++i) {
    const auto index = static_cast<std::size_t>(i);
    if (call_.state->topk_owner[index] >= 0)
      place(call_.state->topk_owner[index], call_.state->expert_row[index]);
  }
}

void DispatchOperation::send_tokens(IndexRange tokens) const {
  const std::size_t total = static_cast<std::size_t>(call_.state->num_tokens) *
                            call_.shape.row_bytes *
                            static_cast<std::size_t>(std::max(
                                1, std::min(call_.state->num_topk, call_.state->num_ranks)));
  const simd::StorePolicy policy = simd::policy_for(total);
  std::vector<void*> rows;
  std::vector<std::byte> scale_row(call_.shape.scale_bytes);
  for (std::int64_t token = tokens.begin; token < tokens.end; ++token) {
    gather_rows(token, ReceivePart::kPayload, call_.shape.row_bytes, rows);
    const auto* source =
        call_.inputs.x.as<std::byte>() + static_cast<std::size_t>(token) * call_.shape.row_bytes;
    if (!rows.empty()) simd::copy_row(source, rows, call_.shape.row_bytes, policy);
    if (call_.inputs.scales) {
      gather_scales(*call_.inputs.scales, token, scale_row.data());
      gather_rows(token, ReceivePart::kScales, call_.shape.scale_bytes, rows);
      for (void* row : rows) std::memcpy(row, scale_row.data(), call_.shape.scale_bytes);
    }
    for (Rank rank(0); rank.value() < call_.state->num_ranks; rank = rank.next()) {
      send_metadata(token, rank, targets_[rank.index()]);
    }
    if (call_.inputs.topk_weights && call_.state->layout == Layout::kExpertMajor)
      send_expert_weights(token);
  }
  simd::streaming_fence();
}

void DispatchOperation::send_metadata(std::int64_t token, Rank destination,
                                      const Target& target) const {
  const std::int32_t row = call_.state->send_row[static_cast<std::size_t>(
      token * call_.state->num_ranks + destination.value())];
  if (row == kNoRow || !target.present) return;
  if (call_.state->layout == Layout::kCompact) send_topk(token, destination, row, target);
  if (call_.is_cached()) return;
  auto* sources = reinterpret_cast<std::int32_t*>(target.part(ReceivePart::kSourceToken));
  sources[row] = static_cast<std::int32_t>(token);
  if (call_.state->layout == Layout::kCompact) return;
  const std::int64_t num_topk = call_.state->num_topk;
  auto* rows = reinterpret_cast<std::int32_t*>(target.part(ReceivePart::kExpertRow));
  for (std::int64_t k = 0; k < num_topk; ++k) {
    const auto selection = static_cast<std::size_t>(token * num_topk + k);
    const bool here = call_.state->topk_owner[selection] == destination.value();
    rows[row * num_topk + k] =
        static_cast<std::int32_t>(here ? call_.state->expert_row[selection] : kNoRow);
  }
}

void DispatchOperation::send_topk(std::int64_t token, Rank destination, std::int64_t row,
                                  const Target& target) const {
  const ExpertMap map = call_.state->expert_map();
  const std::int64_t num_topk = call_.state->num_topk;
  for (std::int64_t k = 0; k < num_topk; ++k) {
    const std::int64_t selection = token * num_topk + k;
    const std::int64_t out = row * num_topk + k;
    const bool here =
        call_.state->topk_owner[static_cast<std::size_t>(selection)] == destination.value();
    if (call_.inputs.topk_weights) {
      auto* weights = reinterpret_cast<float*>(target.part(ReceivePart::kTopkWeights));
      weights[out] = here ? call_.inputs.topk_weights->as<float>()[selection] : 0.0F;
    }
    if (topk_.empty()) continue;
    const std::int64_t id = topk_.at(token, static_cast<int>(k));
    const std::int64_t local = here ? localize(map, id, destination) : kNoExpert;
    std::byte* ids = target.part(ReceivePart::kTopkIdx);
    if (call_.inputs.topk_idx->dtype == DType::kInt64) {
      reinterpret_cast<std::int64_t*>(ids)[out] = local;
    } else {
      reinterpret_cast<std::int32_t*>(ids)[out] = static_cast<std::int32_t>(local);
    }
  }
}

void DispatchOperation::send_expert_weights(std::int64_t token) const {
  for (std::int64_t i = token * call_.state->num_topk; i < (token + 1) * call_.state->num_topk;
       ++i) {
    const auto selection = static_cast<std::size_t>(i);
    if (call_.state->topk_owner[selection] < 0) continue;
    const Target& target = targets_[static_cast<std::size_t>(call_.state->topk_owner[selection])];
    if (!target.present) continue;
    auto* weights = reinterpret_cast<float*>(target.part(ReceivePart::kTopkWeights));
    weights[call_.state->expert_row[selection]] = call_.inputs.topk_weights->as<float>()[i];
  }
}

void DispatchOperation::clear_rows(ReceivePart part, IndexRange rows, std::size_t row_bytes,
                                   std::byte value) const {
  std::byte* const base = targets_[context_.rank.index()].part(part);
  std::fill(base + static_cast<std::size_t>(rows.begin) * row_bytes,
            base + static_cast<std::size_t>(rows.end) * row_bytes, value);
}

void DispatchOperation::fill_unused_rows() const {
  const IndexRange tail{
      call_.state->layout == Layout::kCompact ? call_.state->num_recv_tokens : fill_group_gaps(),
      call_.state->num_recv_rows};
  const bool compact = call_.state->layout == Layout::kCompact;
  const std::size_t per_row = compact ? call_.shape.num_topk : 1;
  clear_rows(ReceivePart::kTopkWeights, tail, per_row * call_.shape.weight_bytes, std::byte{0});
  if (compact) {  // all bytes 0xff: -1
    clear_rows(ReceivePart::kTopkIdx, tail, per_row * call_.shape.index_bytes, std::byte{0xff});
  }
}

void DispatchOperation::clear_rows_of(Rank source) const {
  const CountMatrix counts = call_.state->count_matrix();
  const auto clear = [this](IndexRange rows) {
    const bool compact = call_.state->layout == Layout::kCompact;
    const std::size_t per_row = compact ? call_.shape.num_topk : 1;
    clear_rows(ReceivePart::kPayload, rows, call_.shape.row_bytes, std::byte{0});
    clear_rows(ReceivePart::kScales, rows, call_.shape.scale_bytes, std::byte{0});
    clear_rows(ReceivePart::kTopkWeights, rows, per_row * call_.shape.weight_bytes, std::byte{0});
    if (compact) {
      clear_rows(ReceivePart::kTopkIdx, rows, per_row * call_.shape.index_bytes, std::byte{0xff});
    }
  };
  const std::int64_t begin = compact_start(counts, source, context_.rank).value();
  const IndexRange tokens{begin, begin + counts.tokens(source, context_.rank)};
  if (!call_.is_cached()) {  // combine reads these: they must lead nowhere
    const std::size_t list_bytes = call_.shape.num_topk * sizeof(std::int32_t);
    const bool compact = call_.state->layout == Layout::kCompact;
    clear_rows(ReceivePart::kSourceToken, tokens, sizeof(std::int32_t), std::byte{0});
    clear_rows(ReceivePart::kExpertRow, tokens, compact ? 0 : list_bytes, std::byte{0xff});
  }
  if (call_.state->layout == Layout::kCompact) {
    clear(tokens);
    return;
  }
  const ExpertMap map = call_.state->expert_map();
  std::vector<std::int64_t> starts(static_cast<std::size_t>(map.experts_per_rank));
  expert_group_starts(counts, map, context_.rank, call_.state->expert_alignment, starts.data());
  for (LocalExpert local(0); local.value() < map.experts_per_rank; local = local.next()) {
    const Expert expert = map.global(context_.rank, local);
    const std::int64_t first = starts[local.index()] + counts.selections_before(source, expert);
    clear(IndexRange{first, first + counts.selections(source, expert)});
  }
}

std::int64_t DispatchOperation::fill_group_gaps() const {
  const auto* counts = call_.state->recv_tokens_per_expert.view.as<std::int32_t>();
  std::int64_t group = 0;
  for (std::int64_t i = 0; i < call_.state->recv_tokens_per_expert.view.shape[0]; ++i) {
    const std::int64_t end =
        group + align_up(std::int64_t{counts[i]}, call_.state->expert_alignment);
    const IndexRange gap{group + counts[i], end};
    if (call_.state->padding == Padding::kZero) {
      clear_rows(ReceivePart::kPayload, gap, call_.shape.row_bytes, std::byte{0});
      clear_rows(ReceivePart::kScales, gap, call_.shape.scale_bytes, std::byte{0});
    }
    clear_rows(ReceivePart::kTopkWeights, gap, call_.shape.weight_bytes, std::byte{0});
    group = end;
  }
  return group;
}

void DispatchOperation::add_statistics() const {
  if (!call_.inputs.recv_stats) return;
  const auto* counts = call_.state->recv_tokens_per_expert.view.as<std::int32_t>();
  auto* stats = call_.inputs.recv_stats->as<std::int32_t>();
  for (std::int64_t i = 0; i < call_.inputs.recv_stats->shape[0]; ++i) stats[i] += counts[i];
}

}  // namespace moelink
