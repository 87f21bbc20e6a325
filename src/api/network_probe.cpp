// Round trips, volleys of large puts, and the patterns by which their bytes are known.
#include "api/network_probe.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <utility>

#include "base/check.hpp"
#include "protocol/wire_region.hpp"
#include "transport/backoff.hpp"

namespace moelink {

namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kStage = "network check";

// What a peer counts; in the order in which a pair needs it.
enum Counter : std::uint32_t { kHello, kSmall, kRow, kReady, kBulk, kTaken, kNumCounters };

constexpr std::size_t kSmallBytes = 8;
constexpr std::size_t kRowBytes = 7168;
constexpr std::size_t kBulkBytes = std::size_t{1} << 20;
constexpr std::size_t kNumWarmups = 10;
constexpr std::size_t kNumRoundTrips = 100;
constexpr std::size_t kNumBatches = 5;  // the first one warms up
constexpr std::size_t kPutsPerBatch = 4;
constexpr std::size_t kBatchBytes = kPutsPerBatch * kBulkBytes;

// An area has places for all puts that may be under way before their bytes are checked.
constexpr std::size_t kRowsAt = std::size_t{64} << 10;
constexpr std::size_t kBulkAt = std::size_t{1} << 20;
constexpr std::size_t kAreaBytes = kBulkAt + kBatchBytes;
static_assert((kNumWarmups + kNumRoundTrips) * kSmallBytes <= kRowsAt);
static_assert((kNumWarmups + kNumRoundTrips) * kRowBytes <= kBulkAt - kRowsAt);
// Sources share areas from here on. It matters only when puts of a pair that has failed come late.
constexpr std::size_t kNumAreas = 8;
// Puts that only count: from one place, into another one that all peers share.
constexpr std::size_t kNoteFrom = (1 + kNumAreas) * kAreaBytes;
constexpr std::size_t kNoteTo = kNoteFrom + 64;
constexpr std::size_t kMemoryBytes = kNoteTo + 64;

constexpr std::chrono::milliseconds kSettling{100};

// Where a pattern belongs. Bytes that arrive at another place, from somebody else, or that are left
// over from an earlier batch differ in most bits.
struct PatternKey {
  Rank writer;
  std::uint32_t counter = 0;
  std::size_t batch = 0;
};

std::uint64_t pattern_word(const PatternKey& key, std::size_t position) {
  std::uint64_t word = (key.writer.index() << 40) + (std::uint64_t{key.counter} << 36) +
                       (key.batch << 32) + position + 1;
  word *= 0x9e3779b97f4a7c15u;
  word = (word ^ word >> 31) * 0xbf58476d1ce4e5b9u;
  return word ^ word >> 29;
}

// Whole words: all sizes here are multiples of 8.
void fill_pattern(std::span<std::byte> bytes, const PatternKey& key) {
  for (std::size_t at = 0; at < bytes.size(); at += sizeof(std::uint64_t)) {
    const std::uint64_t word = pattern_word(key, at);
    std::memcpy(bytes.data() + at, &word, sizeof(word));
  }
}

std::uint64_t count_wrong_bytes(std::span<const std::byte> bytes, const PatternKey& key) {
  std::uint64_t num_wrong = 0;
  for (std::size_t at = 0; at < bytes.size(); at += sizeof(std::uint64_t)) {
    const std::uint64_t expected = pattern_word(key, at);
    std::uint64_t seen = 0;
    std::memcpy(&seen, bytes.data() + at, sizeof(seen));
    for (std::uint64_t rest = seen ^ expected; rest != 0; rest >>= 8)
      num_wrong += (rest & 0xff) != 0;
  }
  return num_wrong;
}

double microseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

double median_of(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

struct NetworkProbe::Volley {
  Counter counter = kSmall;
  std::size_t at = 0;
  std::size_t put_bytes = 0;

  std::size_t num_bytes() const { return (kNumWarmups + kNumRoundTrips) * put_bytes; }
};

TransportConfig NetworkProbe::transport_config() {
  return {.num_counters = kNumCounters, .num_epoch_lanes = 1, .max_regions = 1};
}

NetworkProbe::NetworkProbe(Bootstrap& bootstrap, std::unique_ptr<Transport> transport,
                           const Deadline& deadline)
    : memory_(kMemoryBytes), transport_(std::move(transport)) {
  region_ = transport_->register_region(memory_);
  const std::string own = encode_region(transport_->wire_region(region_));
  for (const std::string& blob : bootstrap.all_gather(own, "network check: regions", deadline)) {
    const Rank peer(static_cast<std::int32_t>(peers_.size()));
    const std::optional<WireRegion> wire = decode_region(blob);
    if (!wire) {
      fail(ErrorCode::kInternal, "{}: the region of rank {} cannot be read", kStage, peer.value());
    }
    peers_.push_back(transport_->import_region(peer, *wire));
  }
}

std::size_t NetworkProbe::area_bytes() { return kAreaBytes; }

std::size_t NetworkProbe::offset_of_incoming(Rank source) {
  return (1 + source.index() % kNumAreas) * kAreaBytes;
}

std::span<const std::byte> NetworkProbe::incoming(Rank source) const {
  return std::span(memory_).subspan(offset_of_incoming(source), kAreaBytes);
}

Put NetworkProbe::put_of(Rank peer, std::size_t at, std::size_t bytes,
                         std::uint32_t counter) const {
  return Put{.source = region_,
             .source_offset = at,
             .target = peers_[peer.index()],
             .target_offset = offset_of_incoming(transport_->rank()) + at,
             .bytes = bytes,
             .arrival = ArrivalKey{Epoch(0), counter}};
}

Put NetworkProbe::note_to(Rank peer, std::uint32_t counter) const {
  Put note = put_of(peer, kNoteFrom, kSmallBytes, counter);
  note.target_offset = kNoteTo;
  return note;
}

void NetworkProbe::put(Rank peer, std::size_t at, std::size_t bytes, std::uint32_t counter,
                       const Deadline& deadline) {
  transport_->put(put_of(peer, at, bytes, counter), deadline, kStage);
}

void NetworkProbe::note(Rank peer, std::uint32_t counter, const Deadline& deadline) {
  transport_->put(note_to(peer, counter), deadline, kStage);
}

void NetworkProbe::await(Rank peer, std::uint32_t counter, std::uint64_t expected,
                         const Deadline& deadline) {
  transport_->await_arrival({{Epoch(0), counter}, peer, expected, kStage}, deadline);
}

bool NetworkProbe::heard(Rank peer) const {
  return transport_->arrivals().seen({Epoch(0), kHello}, peer) > 0;
}

bool NetworkProbe::try_greet(Rank peer, std::string& problem) {
  try {
    return transport_->try_put(note_to(peer, kHello)) == PutResult::kAccepted;
  } catch (const Error& error) {
    problem = error.what();
    return true;  // no use in trying again
  }
}

std::vector<std::string> NetworkProbe::greet(std::span<const Rank> peers,
                                             const Deadline& deadline) {
  std::vector<std::string> problems(peers_.size());
  std::vector<Rank> unsent(peers.begin(), peers.end());
  const auto is_settled = [&](Rank peer) { return heard(peer) || !problems[peer.index()].empty(); };
  Backoff backoff;
  while (!deadline.expired()) {
    std::erase_if(unsent, [&](Rank peer) { return try_greet(peer, problems[peer.index()]); });
    if (unsent.empty() && std::ranges::all_of(peers, is_settled)) break;
    if (transport_->progress() > 0) {
      backoff.reset();
    } else {
      backoff.pause();
    }
  }
  settle();
  for (const Rank peer : peers) {
    std::string& problem = problems[peer.index()];
    const bool has_left = std::ranges::find(unsent, peer) == unsent.end();
    if (!problem.empty() || (heard(peer) && has_left)) continue;
    problem = fmt::format("rank {}: {}: {} rank {} within {} ms", transport_->rank().value(),
                          kStage, has_left ? "nothing arrived from" : "cannot send to",
                          peer.value(), deadline.span().count());
  }
  return problems;
}

PeerView NetworkProbe::measure(Rank peer, const Deadline& deadline) {
  PeerView view;
  try {
    exchange(peer, view, deadline);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kInvalidArgument) throw;
    view.problem = error.what();
  }
  settle();
  return view;
}

void NetworkProbe::exchange(Rank peer, PeerView& view, const Deadline& deadline) {
  const bool leads = transport_->rank() < peer;
  view.small_put_us = play(peer, {kSmall, 0, kSmallBytes}, view, deadline);
  view.row_put_us = play(peer, {kRow, kRowsAt, kRowBytes}, view, deadline);
  if (leads) view.gb_per_s = send_bulk(peer, deadline);
  receive_bulk(peer, view, deadline);
  if (!leads) view.gb_per_s = send_bulk(peer, deadline);
}

// The lower rank begins. Both time the round trips: from their own put to the next one that comes.
double NetworkProbe::play(Rank peer, const Volley& volley, PeerView& view,
                          const Deadline& deadline) {
  const Rank own = transport_->rank();
  fill_pattern(outgoing().subspan(volley.at, volley.num_bytes()), {own, volley.counter});
  std::vector<double> times;
  Clock::time_point sent;
  for (std::size_t round = 0; round < kNumWarmups + kNumRoundTrips; ++round) {
    const std::size_t at = volley.at + round * volley.put_bytes;
    if (own > peer) await(peer, volley.counter, round + 1, deadline);
    if (own > peer && round > kNumWarmups) times.push_back(microseconds_since(sent));
    sent = Clock::now();
    put(peer, at, volley.put_bytes, volley.counter, deadline);
    if (own < peer) await(peer, volley.counter, round + 1, deadline);
    if (own < peer && round >= kNumWarmups) times.push_back(microseconds_since(sent));
  }
  view.num_wrong_bytes += count_wrong_bytes(incoming(peer).subspan(volley.at, volley.num_bytes()),
                                            {peer, volley.counter});
  return median_of(std::move(times)) / 2;
}

double NetworkProbe::send_bulk(Rank peer, const Deadline& deadline) {
  std::vector<double> times;
  for (std::size_t batch = 0; batch < kNumBatches; ++batch) {
    fill_pattern(outgoing().subspan(kBulkAt, kBatchBytes), {transport_->rank(), kBulk, batch});
    await(peer, kReady, batch + 1, deadline);
    const Clock::time_point start = Clock::now();
    for (std::size_t i = 0; i < kPutsPerBatch; ++i) {
      put(peer, kBulkAt + i * kBulkBytes, kBulkBytes, kBulk, deadline);
    }
    // That the peer has all says that the source may change, too.
    await(peer, kTaken, batch + 1, deadline);
    if (batch > 0) times.push_back(microseconds_since(start));
  }
  return static_cast<double>(kBatchBytes) / median_of(std::move(times)) / 1e3;
}

void NetworkProbe::receive_bulk(Rank peer, PeerView& view, const Deadline& deadline) {
  for (std::size_t batch = 0; batch < kNumBatches; ++batch) {
    note(peer, kReady, deadline);
    await(peer, kBulk, (batch + 1) * kPutsPerBatch, deadline);
    note(peer, kTaken, deadline);
    view.num_wrong_bytes +=
        count_wrong_bytes(incoming(peer).subspan(kBulkAt, kBatchBytes), {peer, kBulk, batch});
  }
}

void NetworkProbe::settle() {
  const Deadline patience = Deadline::after(kSettling);
  Backoff backoff;
  while (transport_->completed_through() < transport_->num_accepted() && !patience.expired()) {
    if (transport_->progress() == 0) backoff.pause();
  }
}

}  // namespace moelink
