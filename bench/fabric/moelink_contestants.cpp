// The same puts through Moelink's transport, and through its proxy.
#include <optional>
#include <vector>

#include "contestant.hpp"
#include "proxy/proxy.hpp"
#include "transport/fabric.hpp"

namespace moelink::bench {

namespace {

const ArrivalKey kKey{Epoch(1), 0};

Deadline soon() { return Deadline::after(std::chrono::seconds(60)); }

// A transport with a registered heap and the other side's heap imported.
struct Side {
  Side(Pair& pair, const std::string& provider) : heap(kHeapBytes), peer(1 - pair.rank()) {
    TransportGroup group{.rank = Rank(pair.rank()), .num_ranks = 2};
    group.all_gather = [&pair](const std::string& blob, const char*, const Deadline&) {
      return pair.exchange(blob);
    };
    TransportConfig config;
    config.provider = provider;
    config.max_outstanding = static_cast<int>(kQueueDepth);
    transport = open_libfabric_transport(group, config, soon());
    source = transport->register_region(heap);
    const auto blobs = pair.exchange(encode_region(transport->wire_region(source)));
    target = transport->import_region(peer, decode_region(blobs[peer.index()]).value());
  }

  Put put_of(std::size_t offset, std::size_t bytes) const {
    return {.source = source,
            .source_offset = offset,
            .target = target,
            .target_offset = offset,
            .bytes = bytes,
            .arrival = kKey};
  }

  std::vector<std::byte> heap;
  Rank peer;
  std::unique_ptr<Transport> transport;
  LocalRegion source;
  PeerRegion target;
};

class TransportContestant final : public Contestant {
 public:
  TransportContestant(Pair& pair, const std::string& provider) : side_(pair, provider) {}

  void put(std::size_t offset, std::size_t bytes) override {
    side_.transport->put(side_.put_of(offset, bytes), soon());
  }
  void await(std::uint64_t num_arrivals) override {
    side_.transport->await_arrival({kKey, side_.peer, num_arrivals, "bench"}, soon());
  }
  void flush() override { side_.transport->flush(soon()); }

 private:
  Side side_;
};

class ProxyContestant final : public Contestant {
 public:
  ProxyContestant(Pair& pair, const std::string& provider)
      : side_(pair, provider), proxy_(std::move(side_.transport), {}) {}

  void put(std::size_t offset, std::size_t bytes) override {
    last_ = proxy_.push(0, command_of(side_.put_of(offset, bytes)), soon());
  }
  void await(std::uint64_t num_arrivals) override {
    const ArrivalWait wait{kKey, side_.peer, num_arrivals, "bench"};
    proxy_.await_arrivals(std::span(&wait, 1), soon());
  }
  void flush() override {
    if (last_) proxy_.await_completed(0, *last_, soon());
  }

 private:
  Side side_;
  Proxy proxy_;
  std::optional<std::uint64_t> last_;
};

}  // namespace

std::unique_ptr<Contestant> open_transport_contestant(Pair& pair, const std::string& provider) {
  return std::make_unique<TransportContestant>(pair, provider);
}

std::unique_ptr<Contestant> open_proxy_contestant(Pair& pair, const std::string& provider) {
  return std::make_unique<ProxyContestant>(pair, provider);
}

}  // namespace moelink::bench
