// Packs, unpacks and forwards messages of tokens.
#include "backend/cpu/network/relay_dispatch.hpp"

#include <algorithm>
#include <cstring>
#include <optional>

#include "backend/cpu/network/message_fit.hpp"
#include "base/check.hpp"

namespace moelink {
namespace {

constexpr MessageChannel kChannel = MessageChannel::kTokens;

}  // namespace

TokenMessage plan_token_message(const CpuContext& context, const DispatchCall& call) {
  const TokenMessage message = TokenMessage::make(
      call.shape, static_cast<std::size_t>(call.state->num_topk), context.relay.group_size());
  require_fit(context, kChannel, call.operation, message);
  return message;
}

RelayDispatch::RelayDispatch(CpuContext& context, const DispatchCall& call, const TokenRows& own,
                             const RowWriter& writer, const std::vector<bool>& present, Epoch epoch)
    : context_(context),
      call_(call),
      own_(own),
      writer_(writer),
      message_(plan_token_message(context, call)),
      epoch_(epoch),
      wait_(context, call.operation, Stage::kSend, epoch),
      num_workers_(workers_for(context, call.inputs.stream)) {
  const RelayPlan& plan = context.relay;
  for (int group = 0; group < plan.num_groups(); ++group) {
    const Rank carrier = plan.carrier(group, context.rank);
    if (!plan.is_far(group, context.rank) || !present[carrier.index()]) continue;
    outgoing_.push_back({.carrier = carrier, .tokens = tokens_to_group(*call.state, plan, group)});
  }
  if (!call.is_cached())
    call.state->relayed.resize(static_cast<std::size_t>(plan.topology.num_ranks));
  for (Rank source(0); source.value() < plan.topology.num_ranks; source = source.next()) {
    if (!plan.carries(context.rank, source) || !present[source.index()]) continue;
    const int own_group = plan.group_of(context.rank);
    incoming_.push_back(
        {.source = source, .placer = RelayPlacer(*call.state, plan, own_group, source)});
  }
}

template <class Step>
bool RelayDispatch::survive(Rank peer, bool& done, const Step& step) {
  try {
    return step();
  } catch (const Error& error) {
    if (context_.survival == Survival::kRaise) throw;
    mask_lost(context_.signals->masks(), context_.rank, peer, error);
    done = true;
    wait_.restart();
    return true;
  }
}

bool RelayDispatch::step() {
  context_.remote->pump();
  bool moved = false;
  for (Outgoing& stream : outgoing_) {
    if (stream.done) continue;
    moved |= survive(stream.carrier, stream.done, [&] { return send_some(stream); });
  }
  for (Incoming& stream : incoming_) {
    if (stream.done) continue;
    moved |= survive(stream.source, stream.done, [&] { return forward_some(stream); });
  }
  if (moved) wait_.note_progress();
  return moved;
}

bool RelayDispatch::is_done() const {
  return std::ranges::all_of(outgoing_, &Outgoing::done) &&
         std::ranges::all_of(incoming_, &Incoming::done);
}

void RelayDispatch::pause() {
  const auto in = std::ranges::find(incoming_, false, &Incoming::done);
  if (in != incoming_.end()) {
    survive(in->source, in->done, [&] {
      wait_.pause(in->source, "sent all its tokens");
      return false;
    });
    return;
  }
  const auto out = std::ranges::find(outgoing_, false, &Outgoing::done);
  survive(out->carrier, out->done, [&] {
    wait_.pause(out->carrier, "made room for tokens");
    return false;
  });
}

bool RelayDispatch::send_some(Outgoing& stream) {
  const std::span<std::byte> slot = context_.network->try_slot(kChannel, stream.carrier);
  if (slot.empty()) return false;
  const std::size_t num_left = stream.tokens.size() - stream.num_sent;
  const std::size_t num_tokens = std::min(num_left, message_.capacity(slot.size()));
  TokenMessageHeader header{.num_tokens = static_cast<std::uint32_t>(num_tokens)};
  header.is_last = num_tokens == num_left ? 1 : 0;
  std::memcpy(slot.data(), &header, sizeof(header));
  pack(stream, num_tokens, slot.data());
  context_.network->send(kChannel, stream.carrier, message_.total_bytes(num_tokens),
                         wait_.deadline(), epoch_);
  context_.network->statistics().num_dispatch_rows += num_tokens;
  stream.num_sent += num_tokens;
  stream.done = header.is_last != 0;
  return true;
}

void RelayDispatch::pack(const Outgoing& stream, std::size_t num_tokens, std::byte* content) const {
  const auto pack_range = [&](IndexRange range) {
    for (auto i = static_cast<std::size_t>(range.begin); i < static_cast<std::size_t>(range.end);
         ++i) {
      const std::int32_t token = stream.tokens[stream.num_sent + i];
      pack_entry(stream, token, content + message_.entry_offset(i));
      void* row = content + message_.rows_offset(num_tokens) + i * message_.row_bytes;
      simd::copy_row(own_.payload + static_cast<std::size_t>(token) * message_.row_bytes, {&row, 1},
                     message_.row_bytes, simd::StorePolicy::kCached);
      if (!own_.scales) continue;
      gather_row(*own_.scales, token,
                 content + message_.scales_offset(num_tokens) + i * message_.scale_bytes);
    }
  };
  context_.workers.run(static_cast<std::int64_t>(num_tokens), num_workers_, pack_range);
}

std::uint32_t RelayDispatch::destinations_word(int group, std::int32_t token,
                                               std::size_t word) const {
  std::uint32_t bits = 0;
  const int first = static_cast<int>(word) * 32;
  for (int i = first; i < std::min(first + 32, context_.relay.group_size()); ++i) {
    const Rank rank(context_.relay.first_rank(group).value() + i);
    if (own_.placement.row_at(token, rank) != kNoRow) bits |= 1U << (i - first);
  }
  return bits;
}

void RelayDispatch::pack_entry(const Outgoing& stream, std::int32_t token, std::byte* entry) const {
  if (!call_.is_cached()) std::memcpy(entry, &token, sizeof(token));
  for (std::size_t word = 0; word < message_.num_masks; ++word) {
    const std::uint32_t bits =
        destinations_word(context_.relay.group_of(stream.carrier), token, word);
    std::memcpy(entry + message_.masks_offset() + 4 * word, &bits, sizeof(bits));
  }
  for (std::size_t k = 0; k < message_.num_ids; ++k) {
    const bool is_sent = own_.placement.owner_of(token, static_cast<int>(k)) >= 0;
    const auto id = static_cast<std::int32_t>(is_sent ? own_.topk.at(token, static_cast<int>(k))
                                                      : std::int64_t{kNoExpert});
    std::memcpy(entry + message_.ids_offset() + 4 * k, &id, sizeof(id));
  }
  if (message_.num_weights == 0) return;
  std::memcpy(entry + message_.weights_offset(),
              own_.weights + static_cast<std::size_t>(token) * message_.num_weights,
              4 * message_.num_weights);
}

bool RelayDispatch::forward_some(Incoming& stream) {
  context_.network->drop_before(epoch_, kChannel, stream.source, 0, wait_.deadline());
  const std::byte* const content = context_.network->peek(kChannel, stream.source);
  if (content == nullptr) return false;
  TokenMessageHeader header;
  std::memcpy(&header, content, sizeof(header));
  const std::size_t num_bytes = context_.network->peeked_bytes(kChannel, stream.source);
  if (num_bytes != message_.total_bytes(header.num_tokens)) {
    fail(ErrorCode::kInternal,
         "{} (rank {}): rank {} sent a message of {} bytes for {} tokens, expected {}",
         operation_name(call_.operation), context_.rank.value(), stream.source.value(), num_bytes,
         header.num_tokens, message_.total_bytes(header.num_tokens));
  }
  unpack(stream, content, header.num_tokens);
  forward(stream, content, header.num_tokens);
  context_.network->release(kChannel, stream.source, wait_.deadline());
  stream.num_received += header.num_tokens;
  stream.done = header.is_last != 0;
  return true;
}

void RelayDispatch::unpack(Incoming& stream, const std::byte* content, std::size_t num_tokens) {
  const auto num_topk = static_cast<std::size_t>(call_.state->num_topk);
  ids_.assign(num_tokens * num_topk, kNoExpert);
  weights_.resize(num_tokens * message_.num_weights);
  std::vector<std::uint32_t> masks(message_.num_masks);
  for (std::size_t i = 0; i < num_tokens; ++i) {
    const std::byte* const entry = content + message_.entry_offset(i);
    if (message_.num_ids > 0)
      std::memcpy(ids_.data() + i * num_topk, entry + message_.ids_offset(), 4 * message_.num_ids);
    if (message_.num_weights > 0) {
      std::memcpy(weights_.data() + i * num_topk, entry + message_.weights_offset(),
                  4 * message_.num_weights);
    }
    if (call_.is_cached()) continue;
    std::int32_t token = 0;
    std::memcpy(&token, entry, sizeof(token));
    std::memcpy(masks.data(), entry + message_.masks_offset(), 4 * message_.num_masks);
    stream.placer.place(token, masks.data(), ids_.data() + i * num_topk,
                        call_.state->relayed[stream.source.index()]);
  }
}

void RelayDispatch::forward(Incoming& stream, const std::byte* content, std::size_t num_tokens) {
  const RelayedTokens& relayed = call_.state->relayed[stream.source.index()];
  const auto first = static_cast<std::size_t>(stream.num_received);
  const auto count = static_cast<std::int64_t>(num_tokens);
  TokenRows rows;
  rows.payload = content + message_.rows_offset(num_tokens);
  if (call_.inputs.scales) {
    rows.scales =
        TensorView::contiguous(const_cast<std::byte*>(content + message_.scales_offset(num_tokens)),
                               call_.inputs.scales->dtype, {count, call_.inputs.scales->shape[1]});
  }
  if (message_.num_ids > 0) {
    rows.topk = TopkList(
        TensorView::contiguous(ids_.data(), DType::kInt32, {count, call_.state->num_topk}));
  }
  rows.weights = message_.num_weights > 0 ? weights_.data() : nullptr;
  rows.source_tokens = relayed.tokens.data() + first;
  rows.placement = relayed.placement(first, call_.state->num_ranks, call_.state->num_topk);
  const simd::StorePolicy policy = simd::policy_for(message_.total_bytes(num_tokens));
  context_.workers.run(count, num_workers_,
                       [&](IndexRange range) { writer_.write(rows, range, policy); });
}

}  // namespace moelink
