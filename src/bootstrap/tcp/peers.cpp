// Bookkeeping of rank 0 about the other ranks.
#include "bootstrap/tcp/peers.hpp"

#include <fmt/format.h>

#include <utility>

namespace moelink::tcp {

using rendezvous::FrameKind;

namespace {

// How long rank 0 tries to tell the others why the group has failed.
constexpr std::chrono::milliseconds kAnnouncePatience{1000};

}  // namespace

std::string Peers::Peer::loss() const {
  if (!malformed.empty()) return malformed;
  return channel ? channel->close_reason() : std::string();
}

Peers::Peers(int num_ranks) : peers_(static_cast<std::size_t>(num_ranks)) {}

void Peers::admit(Rank rank, Channel channel) {
  peers_[rank.index()].channel.emplace(std::move(channel));
}

std::vector<Rank> Peers::absent() const {
  std::vector<Rank> ranks;
  for (Rank rank(1); rank.value() < num_ranks(); rank = rank.next()) {
    if (!has_joined(rank)) ranks.push_back(rank);
  }
  return ranks;
}

void Peers::watch(PollSet& set) {
  for (Peer& peer : peers_) {
    peer.poll_idx.reset();
    if (!peer.usable()) continue;
    const short events = peer.channel->has_output() ? POLLIN | POLLOUT : POLLIN;
    peer.poll_idx = set.add(peer.channel->fd(), events);
  }
}

void Peers::exchange(const PollSet& set) {
  for (Peer& peer : peers_) {
    if (!peer.poll_idx || !set.ready(*peer.poll_idx)) continue;
    peer.channel->exchange();
    absorb_frames(peer);
  }
}

void Peers::absorb_frames(Peer& peer) {
  while (auto frame = peer.channel->next_frame()) {
    if (frame->kind == FrameKind::kPart && !peer.part) {
      peer.part = rendezvous::decode_part(frame->payload);
      if (!peer.part) peer.malformed = "it sent a malformed blob";
    } else if (frame->kind == FrameKind::kGiveUp) {
      peer.give_up = rendezvous::decode_give_up(frame->payload);
    } else {
      peer.malformed = "it sent a frame that was not expected";
    }
  }
}

std::optional<rendezvous::Part> Peers::take_part(Rank rank) {
  return std::exchange(peers_[rank.index()].part, std::nullopt);
}

void Peers::send_to_all(FrameKind kind, std::shared_ptr<const std::string> payload) {
  for (Peer& peer : peers_) {
    if (peer.usable()) peer.channel->queue(kind, payload);
  }
}

std::vector<Rank> Peers::with_output() const {
  std::vector<Rank> ranks;
  for (Rank rank(1); rank.value() < num_ranks(); rank = rank.next()) {
    const Peer& peer = peers_[rank.index()];
    if (peer.channel && peer.channel->has_output()) ranks.push_back(rank);
  }
  return ranks;
}

std::optional<Failure> Peers::find_failure(std::string_view what, std::uint64_t sequence,
                                           const std::vector<Rank>& missing) const {
  for (Rank rank(1); rank.value() < num_ranks(); rank = rank.next()) {
    const auto& give_up = peers_[rank.index()].give_up;
    if (!give_up || give_up->sequence != sequence) continue;
    const std::string_view late = "rank 0 itself came too late";
    return Failure{
        ErrorCode::kTimeout,
        fmt::format(
            "{}: rank {} gave up after {} ms; {}", what, rank.value(), give_up->span_ms,
            missing.empty() ? std::string(late) : describe_ranks(missing) + " did not arrive")};
  }
  return find_lost(what);
}

std::optional<Failure> Peers::find_lost(std::string_view what) const {
  for (Rank rank(1); rank.value() < num_ranks(); rank = rank.next()) {
    const std::string loss = peers_[rank.index()].loss();
    if (!loss.empty()) return lost_rank_failure(what, rank, loss);
  }
  return std::nullopt;
}

void Peers::announce(const Failure& failure) {
  const auto note = std::make_shared<const std::string>(
      rendezvous::encode(rendezvous::FailureNote{failure.code, failure.text}));
  for (Peer& peer : peers_) {
    if (!peer.usable()) continue;
    peer.channel->drop_unsent();
    peer.channel->queue(FrameKind::kFailure, note);
  }
  const Deadline patience = Deadline::after(kAnnouncePatience);
  while (!with_output().empty() && !patience.expired()) {
    PollSet set;
    watch(set);
    set.wait(patience.remaining(kAnnouncePatience));
    exchange(set);
  }
  for (Peer& peer : peers_) {
    if (peer.channel) peer.channel->finish_sending();
  }
}

}  // namespace moelink::tcp
