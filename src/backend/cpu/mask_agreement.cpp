// Rounds of publishing one's own masks and adopting those of the others, until nothing is new.
#include "backend/cpu/mask_agreement.hpp"

namespace moelink {
namespace {

// A peer may publish its next round, but not the one after it, while this rank reads its last:
// rounds in turn use different bits.
std::uint8_t bit_of(std::uint32_t round) { return static_cast<std::uint8_t>(1U << round % 2); }

// Returns whether the masks of `peer` and of this rank differ; adopts those of the peer.
bool adopt_masks(CpuContext& context, Rank peer, std::uint32_t round) {
  RankMasks& masks = context.signals->masks();
  bool differ = false;
  for (Rank rank(0); rank.value() < context.num_ranks(); rank = rank.next()) {
    const std::uint8_t flags = context.control->mask_flag(context.rank, context.epoch, peer, rank)
                                   .load(std::memory_order_relaxed);
    const bool theirs = (flags & bit_of(round)) != 0;
    differ = differ || theirs != masks.is_masked(rank);
    if (theirs && rank != context.rank) masks.mask(rank);
  }
  return differ;
}

// Into `owner`'s memory.
void write_masks(CpuContext& context, Rank owner, std::uint32_t round) {
  const RankMasks& masks = context.signals->masks();
  for (Rank rank(0); rank.value() < context.num_ranks(); rank = rank.next()) {
    const auto word = context.control->mask_flag(owner, context.epoch, context.rank, rank);
    const int others = word.load(std::memory_order_relaxed) & ~bit_of(round);
    const int flags = others | (masks.is_masked(rank) ? bit_of(round) : 0);
    word.store(static_cast<std::uint8_t>(flags), std::memory_order_relaxed);
  }
}

}  // namespace

void publish_masks(CpuContext& context, std::uint32_t round) {
  RankMasks& masks = context.signals->masks();
  const SignalValue value = SignalValue::of(context.epoch, round);
  write_masks(context, context.rank, round);
  for (Rank peer(0); peer.value() < context.num_ranks(); peer = peer.next()) {
    if (peer == context.rank || masks.is_masked(peer)) continue;
    if (!context.control->is_near(peer)) {
      context.remote->send_masks(peer, value);
      continue;
    }
    write_masks(context, peer, round);
    context.signals->put(peer, SignalChannel::kMasksPublished, value);
  }
}

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
      differ = !here || adopt_masks(context, peer, round) || differ;
    }
    if (!differ) return;
  }
}

}  // namespace moelink
