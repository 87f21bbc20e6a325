// Writes tokens to their final rows in the receive blocks of the ranks that share memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "backend/cpu/route.hpp"
#include "backend/cpu/simd/simd.hpp"
#include "backend/cpu/worker_team.hpp"
#include "backend/dispatch_call.hpp"
#include "protocol/receive_layout.hpp"

namespace moelink {

// Where one destination takes the parts of a row.
struct RowTarget {
  std::byte* parts[kNumReceiveParts] = {};
  bool present = false;  // false: masked, or on another node

  std::byte* part(ReceivePart which) const { return parts[static_cast<std::size_t>(which)]; }
};

// Tokens of this rank, or of another one on whose behalf it forwards them.
struct TokenRows {
  const std::byte* payload = nullptr;           // of the first token; rows follow one another
  std::optional<TensorView> scales;             // [tokens, S], any strides
  TopkList topk;                                // may be empty
  const float* weights = nullptr;               // [tokens, K]; may be null
  const std::int32_t* source_tokens = nullptr;  // their numbers at their source; null: 0, 1, ...
  Placement placement;
};

// Copies one row of a strided 2-D tensor to contiguous memory.
void gather_row(const TensorView& tensor, std::int64_t row, std::byte* out);

class RowWriter {
 public:
  // `targets` by rank. Both must outlive this.
  RowWriter(const DispatchCall& call, const std::vector<RowTarget>& targets)
      : call_(call), targets_(targets) {}

  // Several threads may write different tokens.
  void write(const TokenRows& tokens, IndexRange range, simd::StorePolicy policy) const;

 private:
  void gather_rows(const Placement& placement, std::int64_t token, ReceivePart part,
                   std::size_t row_bytes, std::vector<void*>& rows) const;
  void write_metadata(const TokenRows& tokens, std::int64_t token, Rank destination) const;
  void write_topk(const TokenRows& tokens, std::int64_t token, Rank destination,
                  std::int64_t row) const;
  void write_expert_weights(const TokenRows& tokens, std::int64_t token) const;

  const DispatchCall& call_;
  const std::vector<RowTarget>& targets_;
};

}  // namespace moelink
