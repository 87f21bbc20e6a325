// Rings of slots, credits, and the puts that carry both.
#include "network/network.hpp"

#include "base/check.hpp"

namespace moelink {
namespace {

// A region must exist even if nobody is on another node.
std::size_t memory_bytes(const MessageArea& area) {
  return area.total_bytes() > 0 ? area.total_bytes() : sizeof(MessageHeader);
}

// For what is of use to the peer alone: it may have done its part and gone. Whoever needs it again
// finds out.
template <class Action>
void forgive_lost_peers(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kPeerLost) throw;
  }
}

}  // namespace

Network::Network(std::unique_ptr<Transport> transport, const TransportGroup& group,
                 const MessageArea& area, const Deadline& deadline)
    : transport_(std::move(transport)),
      area_(area),
      memory_(memory_bytes(area)),
      region_(transport_->register_region(memory_.bytes())),
      rings_(kNumMessageChannels * static_cast<std::size_t>(area.topology.num_ranks)) {
  const std::string mine = encode_region(transport_->wire_region(region_));
  const std::vector<std::string> regions =
      group.all_gather(mine, "registering memory for messages", deadline);
  for (std::size_t i = 0; i < regions.size(); ++i) {
    const Rank peer(static_cast<std::int32_t>(i));
    const std::optional<WireRegion> wire = decode_region(regions[i]);
    if (!wire) {
      fail(ErrorCode::kInternal, "network (rank {}): rank {} sent a region that cannot be read",
           group.rank.value(), i);
    }
    peer_regions_.push_back(transport_->import_region(peer, *wire));
  }
}

Network::~Network() { transport_->close(); }

Network::Ring& Network::ring(MessageChannel channel, Rank peer) {
  const auto num_ranks = static_cast<std::size_t>(area_.topology.num_ranks);
  return rings_[static_cast<std::size_t>(channel) * num_ranks + peer.index()];
}

const Network::Ring& Network::ring(MessageChannel channel, Rank peer) const {
  return const_cast<Network*>(this)->ring(channel, peer);
}

Put Network::put_to(Rank peer, std::size_t source_offset, std::size_t target_offset,
                    std::size_t bytes) const {
  return Put{.source = region_,
             .source_offset = source_offset,
             .target = peer_regions_[peer.index()],
             .target_offset = target_offset,
             .bytes = bytes};
}

std::span<std::byte> Network::try_slot(MessageChannel channel, Rank peer) {
  const RingShape& shape = this->shape(channel);
  const std::uint64_t number = ring(channel, peer).num_sent + 1;
  const std::uint64_t num_free =
      transport_->arrivals().seen(release_key(channel), peer) * shape.num_to_ack + shape.num_slots;
  if (number > num_free) return {};
  const std::size_t slot = area_.sent_offset(transport_->rank(), peer, channel) +
                           shape.slot_offset(number) + sizeof(MessageHeader);
  return memory_.bytes().subspan(slot, shape.capacity());
}

void Network::send(MessageChannel channel, Rank peer, std::size_t bytes, const Deadline& deadline,
                   Epoch epoch) {
  const Rank self = transport_->rank();
  const std::uint64_t number = ++ring(channel, peer).num_sent;
  const std::size_t slot = shape(channel).slot_offset(number);
  const std::size_t from = area_.sent_offset(self, peer, channel) + slot;
  *reinterpret_cast<MessageHeader*>(memory_.at(from)) = {
      .number = number, .bytes = bytes, .epoch = epoch.value()};
  Put put = put_to(peer, from, area_.received_offset(peer, self, channel) + slot,
                   sizeof(MessageHeader) + bytes);
  put.arrival = message_key(channel, number);
  transport_->put(put, deadline, "send");
  if (channel != MessageChannel::kTokens) return;
  ++statistics_.num_messages;
  statistics_.num_bytes += bytes;
}

const MessageHeader& Network::received(MessageChannel channel, Rank source,
                                       std::uint64_t number) const {
  const std::size_t offset = area_.received_offset(transport_->rank(), source, channel) +
                             shape(channel).slot_offset(number);
  return *reinterpret_cast<const MessageHeader*>(memory_.at(offset));
}

const std::byte* Network::peek(MessageChannel channel, Rank source, std::size_t ahead) const {
  const std::uint64_t number = ring(channel, source).num_released + 1 + ahead;
  const std::uint64_t seen = transport_->arrivals().seen(message_key(channel, number), source);
  if (seen < message_count(number)) return nullptr;
  const MessageHeader& header = received(channel, source, number);
  if (header.number != number || header.bytes > shape(channel).capacity()) {
    fail(ErrorCode::kInternal,
         "network (rank {}): message {} of rank {} says that it is number {} of {} bytes",
         transport_->rank().value(), number, source.value(), header.number, header.bytes);
  }
  return reinterpret_cast<const std::byte*>(&header + 1);
}

std::size_t Network::peeked_bytes(MessageChannel channel, Rank source, std::size_t ahead) const {
  return received(channel, source, ring(channel, source).num_released + 1 + ahead).bytes;
}

Epoch Network::peeked_epoch(MessageChannel channel, Rank source, std::size_t ahead) const {
  return Epoch(received(channel, source, ring(channel, source).num_released + 1 + ahead).epoch);
}

void Network::drop_before(Epoch epoch, MessageChannel channel, Rank source, std::size_t ahead,
                          const Deadline& deadline) {
  while (peek(channel, source, ahead) != nullptr) {
    const Epoch theirs = peeked_epoch(channel, source, ahead);
    if (theirs == epoch) return;
    if (theirs > epoch) {
      fail(ErrorCode::kPeerLost,
           "rank {}: rank {} has gone on without this rank (it is at operation {}, not {})",
           transport_->rank().value(), source.value(), theirs.value(), epoch.value());
    }
    release(channel, source, deadline);  // nothing of this operation has come before it
  }
}

void Network::release(MessageChannel channel, Rank source, const Deadline& deadline) {
  Ring& done = ring(channel, source);
  ++done.num_released;
  if (++done.num_unacked < shape(channel).num_to_ack) return;
  done.num_unacked = 0;
  const std::size_t anywhere = area_.sent_offset(transport_->rank(), source, channel);
  Put put = put_to(source, anywhere, 0, 0);
  put.arrival = release_key(channel);
  forgive_lost_peers([&] { transport_->put(put, deadline, "release"); });
}

void Network::flush(const Deadline& deadline) {
  forgive_lost_peers([&] { transport_->flush(deadline, "send"); });
}

void Network::check_peer(Rank peer, const char* stage) const {
  transport_->check_peer(peer, stage);
  transport_->check_alive(peer, stage);
}

void Network::probe(Rank peer) { transport_->try_put(put_to(peer, 0, 0, 0)); }

}  // namespace moelink
