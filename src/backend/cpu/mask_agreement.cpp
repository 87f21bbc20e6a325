// Rounds of publishing one's own masks and adopting those of the others, until nothing is new.
#include "backend/cpu/mask_agreement.hpp"

#include <cstdint>

namespace moelink {
namespace {

void publish_masks(CpuContext& context, std::uint32_t round) {
  RankMasks& masks = context.signals->masks();
  for (Rank peer(0); peer.value() < context.num_ranks(); peer = peer.next()) {
    if (peer == context.rank || masks.is_masked(peer)) continue;
    for (Rank rank(0); rank.value() < context.num_ranks(); rank = rank.next()) {
      context.control->mask_flag(peer, context.epoch, context.rank, rank)
          .store(masks.is_masked(rank) ? 1 : 0, std::memory_order_relaxed);
    }
    context.signals->put(peer, SignalChannel::kMasksPublished,
                         SignalValue::of(context.epoch, round));
  }
}

// Returns whether the masks of `peer` and of this rank differ; adopts those of the peer.
bool adopt_masks(CpuContext& context, Rank peer) {
  RankMasks& masks = context.signals->masks();
  bool differ = false;
  for (Rank rank(0); rank.value() < context.num_ranks(); rank = rank.next()) {
    const bool theirs = context.control->mask_flag(context.rank, context.epoch, peer, rank)
                            .load(std::memory_order_relaxed) != 0;
    differ = differ || theirs != masks.is_masked(rank);
    if (theirs && rank != context.rank) masks.mask(rank);
  }
  return differ;
}

}  // namespace

void agree_on_masks(CpuContext& context, Operation operation) {
  RankMasks& masks = context.signals->masks();
  for (std::uint32_t round = 1;; ++round) {
    publish_masks(context, round);
    bool differ = false;
    for (Rank peer(0); peer.value() < context.num_ranks(); peer = peer.next()) {
      if (peer == context.rank || masks.is_masked(peer)) continue;
      const bool here = context.signals->wait(peer, SignalChannel::kMasksPublished,
                                              SignalValue::of(context.epoch, round),
                                              context.wait_context(operation, Stage::kExchange));
      differ = !here || adopt_masks(context, peer) || differ;
    }
    if (!differ) return;
  }
}

}  // namespace moelink
