// Keeps messages in the ring, or copies of them, until their tokens are done.
#include "backend/cpu/network/partial_sums.hpp"

#include <algorithm>
#include <iterator>

#include "backend/cpu/network/relay_placer.hpp"
#include "base/check.hpp"

namespace moelink {
namespace {

constexpr MessageChannel kChannel = MessageChannel::kTokens;

}  // namespace

PartialSums::PartialSums(CpuContext& context, const RoutingState& state,
                         const PartialMessage& message, const std::vector<bool>& present)
    : context_(context), message_(message), deadline_(Deadline::after(context.timeout)) {
  const RelayPlan& plan = context.relay;
  streams_.resize(static_cast<std::size_t>(plan.num_groups()));
  for (int group = 0; group < plan.num_groups(); ++group) {
    Stream& stream = streams_[static_cast<std::size_t>(group)];
    stream.carrier = plan.carrier(group, context.rank);
    if (!plan.is_far(group, context.rank) || !present[stream.carrier.index()]) continue;
    stream.lost = false;
    stream.tokens = tokens_to_group(state, plan, group);
  }
}

bool PartialSums::collect() {
  bool any = false;
  for (Stream& stream : streams_) {
    if (!stream.lost) any |= collect_from(stream);
  }
  return any;
}

bool PartialSums::collect_from(Stream& stream) {
  Network& network = *context_.network;
  for (bool any = false;; any = true) {
    network.drop_before(context_.epoch, kChannel, stream.carrier, stream.num_in_ring, deadline_);
    const std::byte* const content = network.peek(kChannel, stream.carrier, stream.num_in_ring);
    if (content == nullptr) return any;
    const std::size_t num_rows =
        network.peeked_bytes(kChannel, stream.carrier, stream.num_in_ring) /
        message_.total_bytes(1);
    if (stream.num_arrived + num_rows > stream.tokens.size()) {
      fail(ErrorCode::kInternal, "combine (rank {}): rank {} sends back more than {} rows",
           context_.rank.value(), stream.carrier.value(), stream.tokens.size());
    }
    stream.messages.push_back(
        {.first = stream.num_arrived, .num_rows = num_rows, .content = content});
    stream.num_arrived += num_rows;
    if (++stream.num_in_ring == network.area().ring(kChannel).num_slots) move_out_oldest(stream);
  }
}

void PartialSums::move_out_oldest(Stream& stream) {
  Message& oldest =
      *std::prev(stream.messages.end(), static_cast<std::ptrdiff_t>(stream.num_in_ring));
  oldest.copy.assign(oldest.content, oldest.content + message_.total_bytes(oldest.num_rows));
  oldest.content = oldest.copy.data();
  context_.network->release(kChannel, stream.carrier, deadline_);
  --stream.num_in_ring;
}

// How many of the stream's tokens come before `end`.
std::size_t PartialSums::num_awaited(const Stream& stream, std::int64_t end) const {
  return static_cast<std::size_t>(std::ranges::lower_bound(stream.tokens, end) -
                                  stream.tokens.begin());
}

void PartialSums::await(IndexRange tokens, RelayWait& wait) {
  for (Stream& stream : streams_) {
    const std::size_t expected = num_awaited(stream, tokens.end);
    while (!stream.lost && stream.num_arrived < expected) {
      try {
        context_.remote->pump();
        if (collect()) {
          wait.note_progress();
        } else {
          wait.pause(stream.carrier, "sent back all sums");
        }
      } catch (const Error& error) {
        if (context_.survival == Survival::kRaise) throw;
        lose(stream, error, wait);
      }
    }
  }
}

void PartialSums::lose(Stream& stream, const Error& error, RelayWait& wait) {
  mask_lost(context_.signals->masks(), context_.rank, stream.carrier, error);
  stream.lost = true;
  wait.restart();
}

void PartialSums::release_before(std::int64_t token, const Deadline& deadline) {
  for (Stream& stream : streams_) {
    if (stream.lost) continue;
    const std::size_t done = num_awaited(stream, token);
    while (!stream.messages.empty()) {
      const Message& oldest = stream.messages.front();
      if (oldest.first + oldest.num_rows > done) break;
      if (stream.messages.size() == stream.num_in_ring) {
        context_.network->release(kChannel, stream.carrier, deadline);
        --stream.num_in_ring;
      }
      stream.messages.pop_front();
    }
  }
}

PartialSums::Found PartialSums::find(int group, std::int64_t token) const {
  const Stream& stream = streams_[static_cast<std::size_t>(group)];
  const auto place = std::ranges::lower_bound(stream.tokens, token);
  if (stream.lost || place == stream.tokens.end() || *place != token) return {};
  const auto index = static_cast<std::size_t>(place - stream.tokens.begin());
  for (const Message& message : stream.messages) {
    if (index < message.first + message.num_rows) return {&message, index - message.first};
  }
  return {};
}

const std::byte* PartialSums::row(int group, std::int64_t token) const {
  const Found found = find(group, token);
  if (found.message == nullptr) return nullptr;
  return found.message->content + found.index * message_.row_bytes;
}

const float* PartialSums::weights(int group, std::int64_t token) const {
  const Found found = find(group, token);
  if (found.message == nullptr) return nullptr;
  const std::byte* const all =
      found.message->content + message_.weights_offset(found.message->num_rows);
  return reinterpret_cast<const float*>(all) + found.index * message_.num_weights;
}

}  // namespace moelink
