// Rank 0's channels to the ranks that have joined, and what each of them has said.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/deadline.hpp"
#include "bootstrap/failure.hpp"
#include "bootstrap/tcp/channel.hpp"
#include "bootstrap/tcp/poll_set.hpp"
#include "moelink/types.hpp"
#include "protocol/rendezvous_frame.hpp"

namespace moelink::tcp {

class Peers {
 public:
  explicit Peers(int num_ranks);

  int num_ranks() const { return static_cast<int>(peers_.size()); }
  void admit(Rank rank, Channel channel);
  bool has_joined(Rank rank) const { return peers_[rank.index()].channel.has_value(); }
  std::vector<Rank> absent() const;

  // One round of input and output: add all channels to a poll set, wait, then move what is ready.
  void watch(PollSet& set);
  void exchange(const PollSet& set);

  // The blob that the rank has sent for the collective `sequence`, once it is here.
  std::optional<rendezvous::Part> take_part(Rank rank);
  void send_to_all(rendezvous::FrameKind kind, std::shared_ptr<const std::string> payload);
  std::vector<Rank> with_output() const;

  // What makes the collective `sequence` impossible, if anything: a rank that closed its
  // connection, or one that gave up waiting for `missing`.
  std::optional<Failure> find_failure(std::string_view what, std::uint64_t sequence,
                                      const std::vector<Rank>& missing) const;
  std::optional<Failure> find_lost(std::string_view what) const;

  // Tells every rank that can still be reached; takes at most a moment.
  void announce(const Failure& failure);

 private:
  struct Peer {
    std::optional<Channel> channel;
    std::optional<std::size_t> poll_idx;
    std::optional<rendezvous::Part> part;
    std::optional<rendezvous::GiveUp> give_up;
    std::string malformed;  // why its frames make no sense

    bool usable() const { return channel && channel->open() && malformed.empty(); }
    std::string loss() const;  // empty: not lost
  };

  void absorb_frames(Peer& peer);

  std::vector<Peer> peers_;  // by rank; rank 0 never joins
};

}  // namespace moelink::tcp
