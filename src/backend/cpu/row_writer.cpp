// Each row goes once from its token to all its places.
#include "backend/cpu/row_writer.hpp"

#include <cstring>

#include "backend/cpu/simd/simd.hpp"

namespace moelink {
void gather_row(const TensorView& tensor, std::int64_t row, std::byte* out) {
  const auto size = static_cast<std::int64_t>(dtype_size(tensor.dtype));
  const std::byte* from = tensor.as<std::byte>() + row * tensor.strides[0] * size;
  for (std::int64_t i = 0; i < tensor.shape[1]; ++i, out += size) {
    std::memcpy(out, from + i * tensor.strides[1] * size, static_cast<std::size_t>(size));
  }
}

void RowWriter::gather_rows(const Placement& placement, std::int64_t token, ReceivePart part,
                            std::size_t row_bytes, std::vector<void*>& rows) const {
  rows.clear();
  const auto place = [&](std::int32_t rank, std::int32_t row) {
    const RowTarget& target = targets_[static_cast<std::size_t>(rank)];
    if (target.present)
      rows.push_back(target.part(part) + static_cast<std::size_t>(row) * row_bytes);
  };
  if (call_.state->layout == Layout::kCompact) {
    for (std::int32_t rank = 0; rank < placement.num_ranks; ++rank) {
      const std::int32_t row = placement.row_at(token, Rank(rank));
      if (row != kNoRow) place(rank, row);
    }
    return;
  }
  for (int k = 0; k < placement.num_topk; ++k) {
    const std::int32_t owner = placement.owner_of(token, k);
    if (owner >= 0) place(owner, placement.expert_row_of(token, k));
  }
}

void RowWriter::write(const TokenRows& tokens, IndexRange range, simd::StorePolicy policy) const {
  const ReceiveShape& shape = call_.shape;
  std::vector<void*> rows;
  std::vector<std::byte> scale_row(shape.scale_bytes);
  for (std::int64_t token = range.begin; token < range.end; ++token) {
    gather_rows(tokens.placement, token, ReceivePart::kPayload, shape.row_bytes, rows);
    if (rows.empty()) continue;
    simd::copy_row(tokens.payload + static_cast<std::size_t>(token) * shape.row_bytes, rows,
                   shape.row_bytes, policy);
    if (tokens.scales) {
      gather_row(*tokens.scales, token, scale_row.data());
      gather_rows(tokens.placement, token, ReceivePart::kScales, shape.scale_bytes, rows);
      for (void* row : rows) std::memcpy(row, scale_row.data(), shape.scale_bytes);
    }
    for (Rank rank(0); rank.value() < tokens.placement.num_ranks; rank = rank.next()) {
      write_metadata(tokens, token, rank);
    }
    if (tokens.weights != nullptr && call_.state->layout == Layout::kExpertMajor)
      write_expert_weights(tokens, token);
  }
  simd::streaming_fence();
}

void RowWriter::write_metadata(const TokenRows& tokens, std::int64_t token,
                               Rank destination) const {
  const RowTarget& target = targets_[destination.index()];
  const Placement& placement = tokens.placement;
  const std::int32_t row = placement.row_at(token, destination);
  if (row == kNoRow || !target.present) return;
  const bool compact = call_.state->layout == Layout::kCompact;
  if (compact) write_topk(tokens, token, destination, row);
  if (call_.is_cached()) return;
  auto* sources = reinterpret_cast<std::int32_t*>(target.part(ReceivePart::kSourceToken));
  sources[row] = tokens.source_tokens == nullptr ? static_cast<std::int32_t>(token)
                                                 : tokens.source_tokens[token];
  if (compact) return;
  auto* rows = reinterpret_cast<std::int32_t*>(target.part(ReceivePart::kExpertRow));
  for (int k = 0; k < placement.num_topk; ++k) {
    const bool here = placement.owner_of(token, k) == destination.value();
    rows[std::int64_t{row} * placement.num_topk + k] =
        here ? placement.expert_row_of(token, k) : static_cast<std::int32_t>(kNoRow);
  }
}

void RowWriter::write_topk(const TokenRows& tokens, std::int64_t token, Rank destination,
                           std::int64_t row) const {
  const ExpertMap map = call_.state->expert_map();
  const RowTarget& target = targets_[destination.index()];
  const int num_topk = tokens.placement.num_topk;
  for (int k = 0; k < num_topk; ++k) {
    const std::int64_t out = row * num_topk + k;
    const bool here = tokens.placement.owner_of(token, k) == destination.value();
    if (tokens.weights != nullptr) {
      auto* weights = reinterpret_cast<float*>(target.part(ReceivePart::kTopkWeights));
      weights[out] = here ? tokens.weights[token * num_topk + k] : 0.0F;
    }
    if (tokens.topk.empty()) continue;
    const std::int64_t id = tokens.topk.at(token, k);
    const std::int64_t local = here ? localize(map, id, destination) : kNoExpert;
    std::byte* ids = target.part(ReceivePart::kTopkIdx);
    if (call_.inputs.topk_idx->dtype == DType::kInt64) {
      reinterpret_cast<std::int64_t*>(ids)[out] = local;
    } else {
      reinterpret_cast<std::int32_t*>(ids)[out] = static_cast<std::int32_t>(local);
    }
  }
}

void RowWriter::write_expert_weights(const TokenRows& tokens, std::int64_t token) const {
  const Placement& placement = tokens.placement;
  for (int k = 0; k < placement.num_topk; ++k) {
    const std::int32_t owner = placement.owner_of(token, k);
    if (owner < 0) continue;
    const RowTarget& target = targets_[static_cast<std::size_t>(owner)];
    if (!target.present) continue;
    auto* weights = reinterpret_cast<float*>(target.part(ReceivePart::kTopkWeights));
    weights[placement.expert_row_of(token, k)] = tokens.weights[token * placement.num_topk + k];
  }
}

}  // namespace moelink
