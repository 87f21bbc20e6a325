// Low latency combine on the CPU: rows go back to fixed slots of their token's owner.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/cpu/low_latency/low_latency_context.hpp"
#include "backend/cpu/low_latency/token_routes.hpp"
#include "backend/cpu/route.hpp"
#include "backend/cpu/simd/weighted.hpp"
#include "protocol/expert_map.hpp"

namespace moelink {

// The caller runs send() and then receive(), each once, on the stream.
class LowLatencyCombine {
 public:
  LowLatencyCombine(CpuContext& context, LowLatencyContext& low_latency,
                    const LowLatencyCombineConfig& config);

  LowLatencyCombineResult result() const { return result_; }
  void send();
  void receive();

 private:
  // One row of the input.
  struct ReturnRow {
    std::int64_t at;  // its place among all rows
    std::int32_t token;
    std::int32_t k;
    const std::byte* row;
  };

  // What goes back for one token and position k: a row, or the weighted sum of several.
  struct Return {
    std::int32_t token;
    std::int32_t k;
    const std::byte* row;  // null: the sum of the terms
    std::size_t first_term = 0;
    std::size_t num_terms = 0;
  };
  struct Returns {
    std::vector<Return> rows;
    std::vector<simd::WeightedRow> terms;  // of all rows
  };

  LowLatencyHeader header() const;
  Returns list_returns(Rank owner) const;
  void write_return(const Returns& returns, const Return& one, std::byte* out) const;
  void send_near(Rank owner, const Returns& returns, const LowLatencyHeader& header) const;
  void send_far(Rank owner, const Returns& returns, const LowLatencyHeader& header) const;
  template <class Visit>
  void visit_rows(Rank owner, const Visit& visit) const;
  std::byte* return_slot(Rank owner, std::int32_t token, std::int32_t k) const;
  void leave_out_strangers();
  void reduce_token(std::int64_t token) const;
  void reduce_exact(std::int64_t token) const;
  void reduce_by_rank(std::int64_t token) const;
  bool one_row_per_rank() const;
  bool contributes(const TokenRoutes::Selection& selection) const {
    return selection.rank >= 0 && contributes_[static_cast<std::size_t>(selection.rank)];
  }

  CpuContext& context_;
  LowLatencyContext& low_latency_;
  LowLatencyCombineConfig config_;
  TopkList topk_;
  ExpertMap map_;
  TokenRoutes routes_;  // from send() on
  LowLatencyArea area_;
  OutstandingSlot slot_;
  LowLatencyCombineResult result_;
  Epoch epoch_;
  std::vector<bool> arrived_;      // the rank has signalled
  std::vector<bool> contributes_;  // and has rows for this rank's tokens
};

}  // namespace moelink
