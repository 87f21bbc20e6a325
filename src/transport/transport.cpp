// The waits that all transports share.
#include "transport/transport.hpp"

#include <algorithm>
#include <bit>

#include "base/check.hpp"
#include "protocol/limits.hpp"
#include "transport/backoff.hpp"

namespace moelink {

namespace {

constexpr int kRoundsPerLook = 256;  // between two looks at clock and peers

}  // namespace

Transport::Transport(const TransportGroup& group)
    : rank_(group.rank),
      num_ranks_(group.num_ranks),
      peer_alive_(group.peer_alive),
      failures_(static_cast<std::size_t>(group.num_ranks)) {}

void Transport::require_open(const char* call) const {
  if (open_) return;
  fail(ErrorCode::kInvalidArgument, "{} (rank {}): the transport is closed", call, rank_.value());
}

bool Transport::peer_alive(Rank peer) const { return !peer_alive_ || peer_alive_(peer); }

void Transport::note_peer_failure(Rank peer, ErrorCode code, const std::string& text) {
  if (peer.index() >= failures_.size()) {
    fail(ErrorCode::kInternal, "rank {}: rank {} of {}: {}", rank_.value(), peer.value(),
         num_ranks_, text);
  }
  std::optional<PeerFailure>& failure = failures_[peer.index()];
  if (!failure) failure = PeerFailure{code, text};
}

void Transport::check_peer(Rank peer, const char* stage) const {
  const std::optional<PeerFailure>& failure = failures_[peer.index()];
  if (!failure) return;
  fail(failure->code, "rank {}: {}: rank {}: {}", rank_.value(), stage, peer.value(),
       failure->text);
}

void Transport::check_alive(Rank peer, const char* stage) const {
  if (peer_alive(peer)) return;
  fail(ErrorCode::kPeerLost, "rank {}: {}: rank {} has gone", rank_.value(), stage, peer.value());
}

// try_put knows no stage: what has befallen the peer is told again, with it.
PutResult Transport::try_put_in(const char* stage, const Put& put) {
  try {
    return try_put(put);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kInvalidArgument)
      check_peer(regions().peer(put.target).peer, stage);
    throw;
  }
}

void Transport::put(const Put& put, const Deadline& deadline, const char* stage) {
  Backoff backoff;
  for (int round = 1; try_put_in(stage, put) == PutResult::kRefused; ++round) {
    if (progress() > 0) {
      backoff.reset();
    } else {
      backoff.pause();
    }
    if (round % kRoundsPerLook != 0) continue;
    const Rank peer = regions().peer(put.target).peer;
    check_alive(peer, stage);
    if (!deadline.expired()) continue;
    fail(ErrorCode::kTimeout, "rank {}: {}: a put of {} bytes to rank {} found no room for {} ms",
         rank_.value(), stage, put.bytes, peer.value(), deadline.span().count());
  }
}

void Transport::flush(const Deadline& deadline, const char* stage) {
  Backoff backoff;
  const std::uint64_t last = num_accepted();
  for (int round = 1; completed_through() < last; ++round) {
    if (progress() > 0) {
      backoff.reset();
    } else {
      backoff.pause();
    }
    const std::optional<Rank> oldest = oldest_incomplete_peer();
    if (round % kRoundsPerLook != 0 || !oldest) continue;
    check_alive(*oldest, stage);
    if (!deadline.expired()) continue;
    fail(ErrorCode::kTimeout,
         "rank {}: {}: puts are not complete after {} ms, the oldest goes to rank {}: expected {} "
         "complete, seen {}",
         rank_.value(), stage, deadline.span().count(), oldest->value(), last, completed_through());
  }
  for (Rank peer(0); peer.value() < num_ranks_; peer = peer.next()) check_peer(peer, stage);
}

bool Transport::has_arrived(const ArrivalWait& wait) const {
  return arrivals().seen(wait.key, wait.source) >= wait.expected;
}

void Transport::await_arrivals(std::span<const ArrivalWait> waits, const Deadline& deadline) {
  Backoff backoff;
  int round = 0;
  for (const ArrivalWait& wait : waits) {
    while (!has_arrived(wait)) {
      check_peer(wait.source, wait.stage);
      if (progress() > 0) {
        backoff.reset();
      } else {
        backoff.pause();
      }
      if (++round % kRoundsPerLook != 0 || has_arrived(wait)) continue;
      check_alive(wait.source, wait.stage);
      if (!deadline.expired()) continue;
      fail_missing_arrival(wait, deadline);
    }
  }
}

void Transport::fail_missing_arrival(const ArrivalWait& wait, const Deadline& deadline) const {
  fail(ErrorCode::kTimeout,
       "rank {}: {}: puts of rank {} on counter {} of epoch {} did not arrive within {} ms: "
       "expected {}, seen {}",
       rank_.value(), wait.stage, wait.source.value(), wait.key.counter, wait.key.epoch.value(),
       deadline.span().count(), wait.expected, arrivals().seen(wait.key, wait.source));
}

void check_config(const TransportGroup& group, const TransportConfig& config) {
  Violations violations("open transport", group.rank);
  violations.require(group.num_ranks >= 1 && group.num_ranks <= kMaxRanks,
                     "num_ranks is {}, expected 1 to {}", group.num_ranks, kMaxRanks);
  violations.require(group.rank.value() >= 0 && group.rank.value() < group.num_ranks,
                     "rank is {}, expected 0 to {}", group.rank.value(), group.num_ranks - 1);
  violations.require(group.all_gather != nullptr, "all_gather is missing");
  violations.require(config.num_counters >= 1 && config.num_counters <= Immediate::kMaxCounters,
                     "num_counters is {}, expected 1 to {}", config.num_counters,
                     Immediate::kMaxCounters);
  violations.require(std::has_single_bit(config.num_epoch_lanes) &&
                         config.num_epoch_lanes <= Immediate::kMaxEpochLanes,
                     "num_epoch_lanes is {}, expected a power of two up to {}",
                     config.num_epoch_lanes, Immediate::kMaxEpochLanes);
  violations.require(config.max_outstanding >= 1, "max_outstanding is {}, expected at least 1",
                     config.max_outstanding);
  violations.require(config.max_regions >= 1 && config.max_regions <= UINT16_MAX,
                     "max_regions is {}, expected 1 to {}", config.max_regions, UINT16_MAX);
  violations.require(config.max_nics >= 1 && config.max_nics <= static_cast<int>(kMaxNics),
                     "max_nics is {}, expected 1 to {}", config.max_nics, kMaxNics);
  const int max_per_nic = static_cast<int>(kMaxNics) / std::clamp(config.max_nics, 1, 8);
  violations.require(config.endpoints_per_nic >= 1 && config.endpoints_per_nic <= max_per_nic,
                     "endpoints_per_nic is {}, expected 1 to {} with max_nics = {}",
                     config.endpoints_per_nic, max_per_nic, config.max_nics);
  violations.throw_if_any();
}

}  // namespace moelink
