// One rank's end of a check of the network: greets peers, exchanges timed puts, checks every byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bootstrap/bootstrap.hpp"
#include "transport/transport.hpp"

namespace moelink {

// What a rank saw of a peer.
struct PeerView {
  double small_put_us = 0;
  double row_put_us = 0;
  double gb_per_s = 0;                // from this rank to the peer
  std::uint64_t num_wrong_bytes = 0;  // among those that came from the peer
  std::string problem = {};
};

class NetworkProbe {
 public:
  static TransportConfig transport_config();

  // Collective. The transport was opened with transport_config(), whatever else that says.
  NetworkProbe(Bootstrap& bootstrap, std::unique_ptr<Transport> transport,
               const Deadline& deadline);

  std::string describe() const { return transport_->describe(); }

  // Collective among the ranks that name one another. Puts a little to each peer and awaits the
  // same of it: by rank, what is wrong with a peer, empty where all is well.
  std::vector<std::string> greet(std::span<const Rank> peers, const Deadline& deadline);
  // Both ranks of a pair, which have greeted each other, call it at the same time, and no two
  // pairs of one rank at once. What befalls the peer is the view's problem.
  PeerView measure(Rank peer, const Deadline& deadline);

 private:
  struct Volley;  // a number of equal puts, each to a place of its own

  void exchange(Rank peer, PeerView& view, const Deadline& deadline);
  // Returns half of the median round trip.
  double play(Rank peer, const Volley& volley, PeerView& view, const Deadline& deadline);
  double send_bulk(Rank peer, const Deadline& deadline);
  void receive_bulk(Rank peer, PeerView& view, const Deadline& deadline);

  void put(Rank peer, std::size_t at, std::size_t bytes, std::uint32_t counter,
           const Deadline& deadline);
  void note(Rank peer, std::uint32_t counter, const Deadline& deadline);
  void await(Rank peer, std::uint32_t counter, std::uint64_t expected, const Deadline& deadline);
  bool try_greet(Rank peer, std::string& problem);
  bool heard(Rank peer) const;
  // Lets the last puts leave; those to a peer that is lost may never do so.
  void settle();

  Put put_of(Rank peer, std::size_t at, std::size_t bytes, std::uint32_t counter) const;
  Put note_to(Rank peer, std::uint32_t counter) const;
  std::span<std::byte> outgoing() { return std::span(memory_).first(area_bytes()); }
  std::span<const std::byte> incoming(Rank source) const;
  static std::size_t area_bytes();
  // Where peers find the area for what comes from `source`.
  static std::size_t offset_of_incoming(Rank source);

  std::vector<std::byte> memory_;  // registered until the transport goes
  std::unique_ptr<Transport> transport_;
  LocalRegion region_;
  std::vector<PeerRegion> peers_;
};

}  // namespace moelink
