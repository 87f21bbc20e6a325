// Holds pieces of puts back and passes them on in a random order.
#include "transport/chaos/chaos_transport.hpp"

#include <algorithm>
#include <array>
#include <deque>
#include <random>
#include <utility>

#include "transport/completion_window.hpp"

namespace moelink {

namespace {

class ChaosTransport final : public Transport {
 public:
  ChaosTransport(std::unique_ptr<Transport> inner, const ChaosOptions& options)
      : Transport(TransportGroup{.rank = inner->rank(), .num_ranks = inner->num_ranks()}),
        inner_(std::move(inner)),
        options_(options),
        random_(options.seed) {}

  std::string describe() const override { return "chaos over " + inner_->describe(); }
  std::vector<GpuRegistration> gpu_ladder() const override { return inner_->gpu_ladder(); }
  LocalRegion register_region(std::span<std::byte> memory) override {
    return inner_->register_region(memory);
  }
  WireRegion wire_region(LocalRegion region) const override { return inner_->wire_region(region); }
  void deregister_region(LocalRegion region) override { inner_->deregister_region(region); }
  PeerRegion import_region(Rank peer, const WireRegion& wire) override {
    return inner_->import_region(peer, wire);
  }
  const RegionTable& regions() const override { return inner_->regions(); }

  PutResult try_put(const Put& put) override;
  int progress() override;

  const ArrivalCounters& arrivals() const override { return inner_->arrivals(); }
  std::uint64_t num_accepted() const override { return window_.num_opened(); }
  std::uint64_t completed_through() const override { return window_.completed_through(); }
  std::optional<Rank> oldest_incomplete_peer() const override { return window_.oldest_peer(); }
  bool peer_alive(Rank peer) const override { return inner_->peer_alive(peer); }
  void check_peer(Rank peer, const char* stage) const override { inner_->check_peer(peer, stage); }
  void close() override {
    note_closed();
    held_.clear();
    inner_->close();
  }

 private:
  struct Held {
    Put piece;
    std::uint64_t put_number = 0;
    int num_rounds = 0;  // to be held back for
  };
  struct Passed {
    std::uint64_t inner_number = 0;
    std::uint64_t put_number = 0;
  };

  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }
  bool happens(int percent) { return below(100) < static_cast<std::uint64_t>(percent); }
  void hold(const Put& put, std::uint32_t log2_pieces);
  int pass_on();
  // True if the piece is no longer held.
  bool pass_on(const Held& held);
  void retire();

  std::unique_ptr<Transport> inner_;
  ChaosOptions options_;
  std::mt19937_64 random_;
  CompletionWindow window_;
  std::vector<Held> held_;
  std::deque<Passed> passed_;  // in the order of their inner numbers
};

PutResult ChaosTransport::try_put(const Put& put) {
  require_open("put");
  regions().check(put);
  const Rank peer = regions().peer(put.target).peer;
  check_peer(peer, "put");
  if (held_.size() + kUnitsPerPut > options_.max_held || happens(options_.refuse_percent)) {
    return PutResult::kRefused;
  }
  const std::uint32_t most = kMaxLog2Pieces - put.log2_pieces;
  const bool splits = most > 0 && happens(options_.split_percent);
  const auto log2_pieces = splits ? static_cast<std::uint32_t>(1 + below(most)) : 0;
  window_.open(peer, 1U << log2_pieces);
  hold(put, log2_pieces);
  return PutResult::kAccepted;
}

void ChaosTransport::hold(const Put& put, std::uint32_t log2_pieces) {
  const std::size_t num_pieces = std::size_t{1} << log2_pieces;
  std::array<std::size_t, kUnitsPerPut + 1> cuts{};
  for (std::size_t i = 1; i < num_pieces; ++i) cuts[i] = below(put.bytes + 1);
  cuts[num_pieces] = put.bytes;
  std::sort(cuts.begin(), cuts.begin() + static_cast<std::ptrdiff_t>(num_pieces));
  for (std::size_t i = 0; i < num_pieces; ++i) {
    Put piece = put;
    piece.source_offset += cuts[i];
    piece.target_offset += cuts[i];
    piece.bytes = cuts[i + 1] - cuts[i];
    piece.log2_pieces += log2_pieces;
    const auto delay = below(static_cast<std::uint64_t>(options_.max_delay_rounds) + 1);
    held_.push_back({piece, window_.num_opened(), static_cast<int>(delay)});
  }
}

int ChaosTransport::progress() {
  int num_events = inner_->progress();
  retire();
  if (!happens(options_.pause_percent)) num_events += pass_on();
  return num_events;
}

int ChaosTransport::pass_on() {
  std::shuffle(held_.begin(), held_.end(), random_);
  const std::size_t num_before = held_.size();
  std::erase_if(held_, [this](Held& held) { return held.num_rounds-- <= 0 && pass_on(held); });
  return static_cast<int>(num_before - held_.size());
}

bool ChaosTransport::pass_on(const Held& held) {
  try {
    if (inner_->try_put(held.piece) == PutResult::kRefused) return false;
    passed_.push_back({inner_->num_accepted(), held.put_number});
  } catch (const Error&) {  // the inner transport keeps it and reports it to whom it concerns
    window_.complete(held.put_number);
  }
  return true;
}

void ChaosTransport::retire() {
  while (!passed_.empty() && passed_.front().inner_number <= inner_->completed_through()) {
    window_.complete(passed_.front().put_number);
    passed_.pop_front();
  }
}

}  // namespace

std::unique_ptr<Transport> make_chaos_transport(std::unique_ptr<Transport> inner,
                                                const ChaosOptions& options) {
  return std::make_unique<ChaosTransport>(std::move(inner), options);
}

}  // namespace moelink
