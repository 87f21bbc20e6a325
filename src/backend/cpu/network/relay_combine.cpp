// Reduces rows right into the messages that carry the sums.
#include "backend/cpu/network/relay_combine.hpp"

#include <algorithm>
#include <cstring>

#include "backend/cpu/network/message_fit.hpp"
#include "backend/cpu/simd/simd.hpp"
#include "base/check.hpp"
#include "moelink/routing.hpp"
#include "protocol/staging_plan.hpp"

namespace moelink {
namespace {

constexpr MessageChannel kChannel = MessageChannel::kTokens;

}  // namespace

PartialMessage plan_partial_message(const CpuContext& context, const CombineConfig& config) {
  PartialMessage message{.row_bytes = static_cast<std::size_t>(config.x.shape[1]) *
                                      dtype_size(config.x.dtype)};
  if (config.topk_weights)
    message.num_weights = static_cast<std::size_t>(config.handle->state().num_topk);
  require_fit(context, kChannel, Operation::kCombine, message);
  return message;
}

RelayCombine::RelayCombine(CpuContext& context, const CombineConfig& config,
                           const Exchange& exchange)
    : context_(context),
      config_(config),
      state_(config.handle->state()),
      message_(plan_partial_message(context, config)) {
  for (Rank source(0); source.value() < context.num_ranks(); source = source.next()) {
    if (!context.relay.carries(context.rank, source) || !exchange.present[source.index()]) continue;
    owners_.push_back(
        {.rank = source,
         .relayed = &state_.relayed[source.index()],
         .sources = PullSources(context, state_, exchange, source, message_.row_bytes)});
  }
}

void RelayCombine::lose(Rank rank) {
  for (Owner& owner : owners_) owner.sources.lose(rank);
}

Placement RelayCombine::placement(const Owner& owner) const {
  return owner.relayed->placement(0, state_.num_ranks, state_.num_topk);
}

IndexRange RelayCombine::range_of(const Owner& owner, std::uint32_t chunk,
                                  std::uint32_t num_chunks) const {
  const std::int64_t num_tokens = state_.tokens_of_rank[owner.rank.index()];
  const auto place_of = [&](std::uint32_t c) {
    const std::int64_t token = chunk_begin(num_tokens, c, num_chunks);
    return std::ranges::lower_bound(owner.relayed->tokens, token) - owner.relayed->tokens.begin();
  };
  return IndexRange{place_of(chunk), place_of(chunk + 1)};
}

void RelayCombine::send_chunk(std::uint32_t chunk, std::uint32_t num_chunks, PartialSums& partials,
                              RelayWait& wait) {
  for (Owner& owner : owners_) {
    owner.left = range_of(owner, chunk, num_chunks);
    owner.chunk_begin = owner.left.begin;
  }
  const auto is_behind = [](const Owner& owner) {
    return !owner.lost && owner.left.begin < owner.left.end;
  };
  for (;;) {
    const auto behind = std::ranges::find_if(owners_, is_behind);
    if (behind == owners_.end()) return;
    context_.remote->pump();
    const bool received = partials.collect();
    if (send_round(chunk, wait) || received) {
      wait.note_progress();
      continue;
    }
    try {
      wait.pause(behind->rank, "made room for sums");
    } catch (const Error& error) {
      lose_owner(*behind, error, wait);
    }
  }
}

bool RelayCombine::send_round(std::uint32_t chunk, RelayWait& wait) {
  bool sent = false;
  for (Owner& owner : owners_) {
    if (owner.lost || owner.left.begin == owner.left.end) continue;
    try {
      sent |= send_some(owner, chunk, wait.deadline());
    } catch (const Error& error) {
      lose_owner(owner, error, wait);
    }
  }
  return sent;
}

void RelayCombine::lose_owner(Owner& owner, const Error& error, RelayWait& wait) {
  if (context_.survival == Survival::kRaise) throw;  // from the handler that calls this
  mask_lost(context_.signals->masks(), context_.rank, owner.rank, error);
  owner.lost = true;
  wait.restart();
}

bool RelayCombine::send_some(Owner& owner, std::uint32_t chunk, const Deadline& deadline) {
  const std::span<std::byte> slot = context_.network->try_slot(kChannel, owner.rank);
  if (slot.empty()) return false;
  const std::int64_t begin = owner.left.begin;
  const std::int64_t num_rows =
      std::min(owner.left.end - begin, static_cast<std::int64_t>(message_.capacity(slot.size())));
  const std::size_t weights = message_.weights_offset(static_cast<std::size_t>(num_rows));
  const auto reduce = [&](IndexRange part) {
    for (std::int64_t i = part.begin; i < part.end; ++i) {
      const auto row = static_cast<std::size_t>(i);
      add_row(owner, begin + i, chunk, slot.data() + row * message_.row_bytes);
      if (message_.num_weights == 0) continue;
      add_weights(owner, begin + i,
                  slot.data() + weights + row * message_.num_weights * sizeof(float));
    }
  };
  context_.workers.run(num_rows, workers_for(context_, config_.stream), reduce);
  context_.network->send(kChannel, owner.rank,
                         message_.total_bytes(static_cast<std::size_t>(num_rows)), deadline,
                         context_.epoch);
  context_.network->statistics().num_combine_rows += static_cast<std::uint64_t>(num_rows);
  owner.left.begin += num_rows;
  if (owner.left.begin == owner.left.end) {
    owner.sources.advance(placement(owner), IndexRange{owner.chunk_begin, owner.left.end});
  }
  return true;
}

void RelayCombine::add_row(const Owner& owner, std::int64_t place, std::uint32_t chunk,
                           std::byte* out) const {
  std::vector<Pull> pulls;
  const int group = context_.relay.group_of(context_.rank);
  const Placement rows = placement(owner);
  for (int i = 0; i < context_.relay.group_size(); ++i) {
    const Rank rank(context_.relay.first_rank(group).value() + i);
    owner.sources.list_pulls(rows, place, rank, pulls);
  }
  close_levels(context_.topology, pulls.data(), static_cast<int>(pulls.size()));
  std::vector<simd::Addend> addends;
  for (const Pull& pull : pulls) {
    addends.push_back({owner.sources.address_of(pull, chunk), pull.closes});
  }
  simd::reduce_row({.dtype = config_.x.dtype,
                    .num_channels = static_cast<std::size_t>(config_.x.shape[1]),
                    .addends = addends,
                    .out = out});
}

void RelayCombine::add_weights(const Owner& owner, std::int64_t place, std::byte* out) const {
  float sums[kMaxTopk] = {};
  const Node node = context_.topology.node_of(context_.rank);
  owner.sources.add_weights(placement(owner), place, node, sums);
  std::memcpy(out, sums, message_.num_weights * sizeof(float));
}

}  // namespace moelink
