// High-throughput combine on the CPU: the owner of a token pulls its rows and adds them in flight.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "backend/cpu/cpu_context.hpp"
#include "backend/cpu/exchange.hpp"
#include "backend/cpu/network/partial_sums.hpp"
#include "backend/cpu/network/relay_combine.hpp"
#include "backend/cpu/network/relay_wait.hpp"
#include "backend/cpu/pull_sources.hpp"
#include "backend/cpu/simd/simd.hpp"
#include "backend/cpu/staging.hpp"
#include "backend/routing_state.hpp"
#include "moelink/results.hpp"
#include "protocol/reduction_order.hpp"

namespace moelink {

// One combine in flight. Rows that lie in the arena are read in place; others pass through a
// staging area in chunks of tokens that all ranks derive from the count matrix.
class CombineOperation {
 public:
  CombineOperation(CpuContext& context, const CombineConfig& config);

  CombineResult result() const { return result_; }
  void run();  // on the stream

 private:
  ExchangeBlock describe_call();
  WireSpan publish_weights();
  void open_sources(const Exchange& exchange);
  void run_chunk(std::uint32_t chunk);
  void stage_chunk(std::uint32_t chunk);
  void await_chunk(std::uint32_t chunk);
  void reduce_tokens(IndexRange tokens, std::uint32_t chunk) const;
  void release_chunk(std::uint32_t chunk);

  void list_pulls(std::int64_t token, std::vector<Pull>& pulls) const;
  void list_addends(std::int64_t token, std::uint32_t chunk, std::vector<Pull>& pulls,
                    std::vector<simd::Addend>& addends) const;
  void reduce_weights(std::int64_t token) const;
  void add_weights_of(Node node, std::int64_t token, float* sums) const;
  const std::byte* row_of(const std::optional<TensorView>& tensor, std::int64_t token) const;

  // What crosses the network.
  struct Relay {
    RelayWait wait;
    RelayCombine combine;
    PartialSums partials;
  };

  CpuContext& context_;
  CombineConfig config_;
  const RoutingState& state_;
  CombineResult result_;
  std::size_t row_bytes_;
  std::uint32_t num_chunks_;
  std::unique_ptr<StagingArea> staging_;  // null: x is read in place, or has no rows
  std::unique_ptr<PullSources> sources_;  // of this rank's tokens
  std::unique_ptr<Relay> relay_;          // null without a network
  // Memory that peers read; handed to the context once the operation has begun.
  std::vector<std::shared_ptr<void>> published_;
  Epoch epoch_;
};

}  // namespace moelink
