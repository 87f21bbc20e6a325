// Where messages between two ranks of different nodes lie, and how their arrival is counted.
#pragma once

#include <cstddef>
#include <cstdint>

#include "moelink/host_device.hpp"
#include "moelink/topology.hpp"
#include "moelink/types.hpp"
#include "protocol/arrival.hpp"
#include "protocol/limits.hpp"

namespace moelink {

// Starts every message; the content follows. A message is one put.
struct alignas(64) MessageHeader {
  std::uint64_t number = 0;  // counted from 1 for each pair of ranks and each channel
  std::uint64_t bytes = 0;   // of the content
  std::uint64_t epoch = 0;   // of the operation that it belongs to, where that matters
  std::uint64_t unused[5] = {};
};
static_assert(sizeof(MessageHeader) == 64);

// What a message is for. Each channel has rings of its own.
enum class MessageChannel : std::uint32_t {
  kControl,  // exchanges, signals, faults
  kTokens,   // rows of high-throughput operations
  kLowLatency,
};
inline constexpr std::size_t kNumMessageChannels = 3;

// A ring of slots per direction and pair of ranks: in the memory of the receiver, with a twin at
// the sender. Message n travels from slot n % num_slots of the one to the same slot of the other.
struct RingShape {
  std::uint32_t num_slots = 0;   // at most kNumMessageLanes
  std::size_t slot_bytes = 0;    // a multiple of 64, with the header
  std::uint32_t num_to_ack = 1;  // messages that one acknowledgement stands for

  MOELINK_HD constexpr std::size_t capacity() const { return slot_bytes - sizeof(MessageHeader); }
  MOELINK_HD constexpr std::size_t ring_bytes() const { return num_slots * slot_bytes; }
  MOELINK_HD constexpr std::size_t slot_offset(std::uint64_t number) const {
    return static_cast<std::size_t>(number % num_slots) * slot_bytes;
  }
};

// Lanes of the transport's epochs: the number of a message is the epoch of its put. A slot is used
// again only once its message has been released, so no more messages than slots are on their way
// and none is taken for another.
inline constexpr std::uint32_t kNumMessageLanes = 16;

MOELINK_HD constexpr std::uint32_t num_message_counters() {
  return 2 * static_cast<std::uint32_t>(kNumMessageChannels);
}
MOELINK_HD constexpr ArrivalKey message_key(MessageChannel channel, std::uint64_t number) {
  return ArrivalKey{Epoch(number), 2 * static_cast<std::uint32_t>(channel)};
}
// What its key has counted once message `number` is here.
MOELINK_HD constexpr std::uint64_t message_count(std::uint64_t number) {
  return (number - 1) / kNumMessageLanes + 1;
}
// Counts acknowledgements: all in one lane, as messages are released in order.
MOELINK_HD constexpr ArrivalKey release_key(MessageChannel channel) {
  return ArrivalKey{Epoch(0), 2 * static_cast<std::uint32_t>(channel) + 1};
}

// With whom a rank exchanges messages of a channel.
enum class MessagePeers : std::uint32_t {
  kAll,   // every rank of every other node
  kRail,  // the rank with the same local number in every other node
};

// Memory of one rank for messages: channel after channel, for each peer of it the ring of what is
// sent and that of what is received.
struct MessageArea {
  struct Channel {
    MessagePeers peers = MessagePeers::kAll;
    RingShape ring;
  };

  Topology topology;
  Channel channels[kNumMessageChannels];

  MOELINK_HD constexpr const Channel& of(MessageChannel channel) const {
    return channels[static_cast<std::size_t>(channel)];
  }
  MOELINK_HD constexpr const RingShape& ring(MessageChannel channel) const {
    return of(channel).ring;
  }
  MOELINK_HD constexpr std::size_t sent_offset(Rank owner, Rank peer,
                                               MessageChannel channel) const {
    const std::size_t index = peer_index(owner, peer, of(channel).peers);
    return channel_offset(static_cast<std::size_t>(channel)) +
           2 * index * ring(channel).ring_bytes();
  }
  MOELINK_HD constexpr std::size_t received_offset(Rank owner, Rank peer,
                                                   MessageChannel channel) const {
    return sent_offset(owner, peer, channel) + ring(channel).ring_bytes();
  }
  MOELINK_HD constexpr std::size_t total_bytes() const {
    return channel_offset(kNumMessageChannels);
  }

 private:
  MOELINK_HD constexpr std::size_t num_peers(MessagePeers peers) const {
    const int num_other_nodes = topology.num_nodes - 1;
    return static_cast<std::size_t>(peers == MessagePeers::kRail
                                        ? num_other_nodes
                                        : num_other_nodes * topology.ranks_per_node());
  }
  // Place of `peer` among those of `owner`.
  MOELINK_HD constexpr std::size_t peer_index(Rank owner, Rank peer, MessagePeers peers) const {
    const bool is_above = topology.node_of(peer) > topology.node_of(owner);
    if (peers == MessagePeers::kRail) return topology.node_of(peer).index() - (is_above ? 1 : 0);
    return peer.index() - (is_above ? static_cast<std::size_t>(topology.ranks_per_node()) : 0);
  }
  MOELINK_HD constexpr std::size_t channel_offset(std::size_t channel) const {
    std::size_t offset = 0;
    for (std::size_t i = 0; i < channel; ++i) {
      offset += 2 * num_peers(channels[i].peers) * channels[i].ring.ring_bytes();
    }
    return offset;
  }
};

}  // namespace moelink
