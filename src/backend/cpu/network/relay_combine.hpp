// Sums of tokens of other nodes' ranks, sent back over the network.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend/cpu/cpu_context.hpp"
#include "backend/cpu/exchange.hpp"
#include "backend/cpu/network/partial_sums.hpp"
#include "backend/cpu/network/relay_wait.hpp"
#include "backend/cpu/pull_sources.hpp"
#include "backend/routing_state.hpp"
#include "moelink/config.hpp"
#include "protocol/token_message.hpp"

namespace moelink {

// Adds what the ranks of this rank's group return for the tokens that it carries.
class RelayCombine {
 public:
  RelayCombine(CpuContext& context, const CombineConfig& config, const Exchange& exchange);

  // The number of chunks is that of the whole combine; what comes back meanwhile is taken into
  // `partials`. Throws as RelayWait does.
  void send_chunk(std::uint32_t chunk, std::uint32_t num_chunks, PartialSums& partials,
                  RelayWait& wait);
  // `rank` has been lost: it contributes nothing more.
  void lose(Rank rank);

 private:
  struct Owner {
    Rank rank;
    const RelayedTokens* relayed;
    PullSources sources;
    std::int64_t chunk_begin = 0;  // place in `relayed`
    IndexRange left{};             // of the chunk
    bool lost = false;
  };

  Placement placement(const Owner& owner) const;
  IndexRange range_of(const Owner& owner, std::uint32_t chunk, std::uint32_t num_chunks) const;
  // All that can be sent at the moment, of all owners; returns whether anything could.
  bool send_round(std::uint32_t chunk, RelayWait& wait);
  bool send_some(Owner& owner, std::uint32_t chunk, const Deadline& deadline);
  void add_row(const Owner& owner, std::int64_t place, std::uint32_t chunk, std::byte* out) const;
  void add_weights(const Owner& owner, std::int64_t place, std::byte* out) const;
  void lose_owner(Owner& owner, const Error& error, RelayWait& wait);

  CpuContext& context_;
  const CombineConfig& config_;
  const RoutingState& state_;
  PartialMessage message_;
  std::vector<Owner> owners_;
};

// What the messages of a combine look like. Throws Error(kUnsupported) if a row does not fit one.
PartialMessage plan_partial_message(const CpuContext& context, const CombineConfig& config);

}  // namespace moelink
