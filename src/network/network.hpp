// Messages in order between ranks of different nodes, over a transport that keeps no order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/deadline.hpp"
#include "moelink/results.hpp"
#include "moelink/topology.hpp"
#include "network/message_memory.hpp"
#include "protocol/message_ring.hpp"
#include "transport/transport.hpp"

namespace moelink {

// One rank's end. Used by one thread at a time. Whoever waits for the network calls progress(): no
// other thread does it. To send to a peer that is lost, and progress(), throw as Transport does; to
// release a message of such a peer is no error.
class Network {
 public:
  // Collective. `area` must be the same at all ranks.
  Network(std::unique_ptr<Transport> transport, const TransportGroup& group,
          const MessageArea& area, const Deadline& deadline);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  std::string describe() const { return transport_->describe(); }
  const MessageArea& area() const { return area_; }

  // Where the content of the next message goes; empty while the peer has to release older ones.
  std::span<std::byte> try_slot(MessageChannel channel, Rank peer);
  // Sends the first `bytes` of what try_slot() gave. Waits for room in the transport. `epoch` comes
  // with it.
  void send(MessageChannel channel, Rank peer, std::size_t bytes, const Deadline& deadline,
            Epoch epoch = Epoch(0));

  // The content of the oldest message that has not been released, or of one that comes so many
  // later; null if it has not arrived. It stays where it is until release(), which frees the
  // oldest.
  const std::byte* peek(MessageChannel channel, Rank source, std::size_t ahead = 0) const;
  std::size_t peeked_bytes(MessageChannel channel, Rank source, std::size_t ahead = 0) const;
  Epoch peeked_epoch(MessageChannel channel, Rank source, std::size_t ahead = 0) const;
  void release(MessageChannel channel, Rank source, const Deadline& deadline);
  // Releases what is left of operations before `epoch`, by a rank that was lost in one of them.
  // Throws Error(kPeerLost) if the source is already at a later one.
  void drop_before(Epoch epoch, MessageChannel channel, Rank source, std::size_t ahead,
                   const Deadline& deadline);
  // Messages so far: a count that travels in another channel tells the order between the two.
  std::uint64_t num_sent(MessageChannel channel, Rank peer) const {
    return ring(channel, peer).num_sent;
  }
  std::uint64_t num_released(MessageChannel channel, Rank source) const {
    return ring(channel, source).num_released;
  }

  // Moves what can be moved. Returns the number of events.
  int progress() { return transport_->progress(); }
  // Until everything sent has left, but for what was meant for peers that are lost: others may need
  // it while this rank makes no progress.
  void flush(const Deadline& deadline);
  // Throws what has befallen the peer, if anything has.
  void check_peer(Rank peer, const char* stage) const;
  // Sends something to the peer that it does not notice: if its process has died, the transport
  // finds out.
  void probe(Rank peer);

  // The rows are counted by who sends them.
  NetworkStatistics& statistics() { return statistics_; }

 private:
  // Both directions of one channel with one peer.
  struct Ring {
    std::uint64_t num_sent = 0;
    std::uint64_t num_released = 0;  // received messages that are done with
    std::uint64_t num_unacked = 0;   // of them: the peer does not know yet
  };

  const RingShape& shape(MessageChannel channel) const { return area_.ring(channel); }
  Ring& ring(MessageChannel channel, Rank peer);
  const Ring& ring(MessageChannel channel, Rank peer) const;
  const MessageHeader& received(MessageChannel channel, Rank source, std::uint64_t number) const;
  Put put_to(Rank peer, std::size_t source_offset, std::size_t target_offset,
             std::size_t bytes) const;

  std::unique_ptr<Transport> transport_;
  MessageArea area_;
  MessageMemory memory_;
  LocalRegion region_;
  std::vector<PeerRegion> peer_regions_;  // by rank
  std::vector<Ring> rings_;               // by channel and rank
  NetworkStatistics statistics_;
};

}  // namespace moelink
