// Puts by copying at once; arrivals are counted when the receiver makes progress, as on a network.
#include "transport/loopback/loopback_transport.hpp"

#include <utility>

#include "base/check.hpp"
#include "transport/completion_window.hpp"
#include "transport/loopback/loopback_inbox.hpp"

namespace moelink {

namespace {

class LoopbackTransport final : public Transport {
 public:
  LoopbackTransport(const TransportGroup& group, const TransportConfig& config,
                    std::shared_ptr<LoopbackInbox> inbox)
      : Transport(group),
        regions_(group.rank, group.num_ranks, config.max_regions, config.num_counters),
        arrivals_({static_cast<std::uint32_t>(group.num_ranks), config.num_counters,
                   config.num_epoch_lanes}),
        inbox_(std::move(inbox)) {}
  ~LoopbackTransport() override { inbox_->close(); }

  void meet(std::vector<std::shared_ptr<LoopbackInbox>> inboxes) { peers_ = std::move(inboxes); }

  std::string describe() const override { return "loopback"; }

  LocalRegion register_region(std::span<std::byte> memory) override {
    require_open("register_region");
    const LocalRegion region = regions_.add(memory);
    if (keys_.size() <= region.index()) keys_.resize(region.index() + 1);
    keys_[region.index()] = inbox_->open_region(memory);
    return region;
  }
  WireRegion wire_region(LocalRegion region) const override {
    WireRegion wire{.bytes = regions_.local(region).size(), .num_keys = 1};
    wire.keys[0] = keys_[region.index()];
    return wire;
  }
  void deregister_region(LocalRegion region) override {
    regions_.remove(region);
    inbox_->close_region(keys_[region.index()]);
  }
  PeerRegion import_region(Rank peer, const WireRegion& wire) override {
    return regions_.import(peer, wire);
  }
  const RegionTable& regions() const override { return regions_; }

  PutResult try_put(const Put& put) override;
  int progress() override;

  const ArrivalCounters& arrivals() const override { return arrivals_; }
  std::uint64_t num_accepted() const override { return window_.num_opened(); }
  std::uint64_t completed_through() const override { return window_.completed_through(); }
  std::optional<Rank> oldest_incomplete_peer() const override { return window_.oldest_peer(); }

  bool peer_alive(Rank peer) const override {
    return peers_[peer.index()]->is_open() && Transport::peer_alive(peer);
  }
  void close() override {
    note_closed();
    inbox_->close();
  }

 private:
  RegionTable regions_;
  ArrivalCounters arrivals_;
  CompletionWindow window_;
  std::vector<std::uint64_t> keys_;  // of local regions
  std::shared_ptr<LoopbackInbox> inbox_;
  std::vector<std::shared_ptr<LoopbackInbox>> peers_;
};

PutResult LoopbackTransport::try_put(const Put& put) {
  require_open("put");
  regions_.check(put);
  const RegionTable::Imported& target = regions_.peer(put.target);
  check_peer(target.peer, "put");
  LoopbackInbox::Delivery delivery{
      .key = target.wire.keys[0],
      .offset = put.target_offset,
      .bytes = regions_.local(put.source).subspan(put.source_offset, put.bytes)};
  if (put.arrival) delivery.arrival = Immediate::of(*put.arrival, rank(), put.log2_pieces);
  switch (peers_[target.peer.index()]->deliver(delivery)) {
    case LoopbackInbox::Outcome::kDone:
      break;
    case LoopbackInbox::Outcome::kFull:
      return PutResult::kRefused;
    case LoopbackInbox::Outcome::kClosed:
      note_peer_failure(target.peer, ErrorCode::kPeerLost, "its transport is closed");
      break;
    case LoopbackInbox::Outcome::kNoRegion:
      note_peer_failure(target.peer, ErrorCode::kPeerLost, "it has deregistered the region");
      break;
  }
  check_peer(target.peer, "put");
  window_.open(target.peer, 0);
  return PutResult::kAccepted;
}

int LoopbackTransport::progress() {
  require_open("progress");
  const std::deque<Immediate> arrived = inbox_->take_arrivals();
  for (const Immediate immediate : arrived) {
    if (arrivals_.count(immediate)) continue;
    note_peer_failure(immediate.source(), ErrorCode::kInvalidArgument,
                      "it names a counter that does not exist here: num_counters differs");
  }
  return static_cast<int>(arrived.size());
}

}  // namespace

std::unique_ptr<Transport> open_loopback_transport(const TransportGroup& group,
                                                   const TransportConfig& config,
                                                   const Deadline& deadline) {
  check_config(group, config);
  auto inbox = std::make_shared<LoopbackInbox>(static_cast<std::size_t>(config.max_outstanding));
  auto transport = std::make_unique<LoopbackTransport>(group, config, inbox);
  const std::vector<std::string> tickets =
      group.all_gather(publish_inbox(inbox), "opening the loopback transport", deadline);
  std::vector<std::shared_ptr<LoopbackInbox>> inboxes;
  std::optional<std::size_t> foreign;
  for (std::size_t rank = 0; rank < tickets.size(); ++rank) {
    inboxes.push_back(find_inbox(tickets[rank]));
    if (!inboxes.back() && !foreign) foreign = rank;
  }
  transport->meet(std::move(inboxes));
  // Nobody leaves before all have found all.
  group.all_gather(std::string(), "meeting over the loopback transport", deadline);
  if (foreign) {
    fail(ErrorCode::kUnsupported,
         "open transport (rank {}): rank {} is in another process; loopback connects threads of "
         "one process only",
         group.rank.value(), *foreign);
  }
  return transport;
}

}  // namespace moelink
