// Each pair of ranks makes sure that both are here before either leaves, without a common epoch.
#include "backend/cpu/reunion.hpp"

#include <algorithm>
#include <functional>
#include <vector>

namespace moelink {
namespace {

// Tells each peer which of its words this rank has seen.
class Replies {
 public:
  explicit Replies(CpuContext& context)
      : context_(context), told_(static_cast<std::size_t>(context.num_ranks()), SignalValue(0)) {}

  void send() {
    const RankMasks& masks = context_.signals->masks();
    for (Rank peer(0); peer.value() < context_.num_ranks(); peer = peer.next()) {
      if (peer == context_.rank || masks.is_masked(peer)) continue;
      const SignalValue seen = context_.signals->seen(peer, SignalChannel::kReturning);
      if (seen.word() == told_[peer.index()].word()) continue;
      told_[peer.index()] = seen;
      context_.signals->put(peer, SignalChannel::kReturnSeen, seen);
    }
  }

 private:
  CpuContext& context_;
  std::vector<SignalValue> told_;
};

}  // namespace

void meet_again(CpuContext& context, Operation operation) {
  SignalBoard& signals = *context.signals;
  // Never used before, as each call is followed by an exchange: that a peer has seen it says that
  // the peer is here. Words that peers have put in earlier calls, without this rank, say nothing.
  const SignalValue mine = SignalValue::of(context.epoch.next(), kDone);
  signals.put_all(SignalChannel::kReturning, mine);
  Replies replies(context);
  const std::function<void()> reply = [&replies] { replies.send(); };
  WaitContext wait_context = context.wait_context(operation, Stage::kExchange);
  wait_context.meanwhile = &reply;
  for (Rank peer(0); peer.value() < context.num_ranks(); peer = peer.next()) {
    replies.send();
    signals.wait(peer, SignalChannel::kReturnSeen, mine, wait_context);
  }
  // Each peer put its word before it replied: all words are of this meeting now.
  replies.send();
  Epoch next = mine.epoch();
  for (Rank peer(0); peer.value() < context.num_ranks(); peer = peer.next()) {
    if (peer == context.rank || signals.masks().is_masked(peer)) continue;
    next = std::max(next, signals.seen(peer, SignalChannel::kReturning).epoch());
  }
  context.epoch = Epoch(next.value() - 1);
  context.completed = context.epoch;
}

}  // namespace moelink
