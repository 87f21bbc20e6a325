// A rank with a transport and memory that its peers may put into, for threads and processes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bootstrap/bootstrap.hpp"
#include "conformance/memory_probes.hpp"
#include "transport/transport.hpp"

namespace moelink::test {

inline TransportGroup group_of(Bootstrap& bootstrap) {
  TransportGroup group{.rank = bootstrap.rank(), .num_ranks = bootstrap.num_ranks()};
  group.all_gather = [&bootstrap](const std::string& blob, const char* what,
                                  const Deadline& deadline) {
    return bootstrap.all_gather(blob, what, deadline);
  };
  return group;
}

// How the suite runs ranks and opens transports for them.
struct TransportKind {
  using Body = std::function<void(Bootstrap&)>;
  using Open = std::unique_ptr<Transport> (*)(const TransportGroup&, const TransportConfig&,
                                              const Deadline&);

  const char* name;
  std::vector<std::string> (*run)(int num_ranks, const Body& body);  // an error text per rank
  Open open;
  // What a rank does that dies; where ranks are threads it returns.
  void (*die)(Transport& transport) = nullptr;
  // Why the kind cannot be tested here; empty if it can.
  std::string (*missing)() = [] { return std::string(); };
  const char* provider = "";
};

inline void PrintTo(const TransportKind& kind, std::ostream* out) { *out << kind.name; }

class TransportRank {
 public:
  // Collective. `half_bytes` to send from and as many to receive into.
  TransportRank(Bootstrap& bootstrap, const TransportKind& kind, std::size_t half_bytes,
                TransportConfig config = {})
      : bootstrap_(bootstrap), half_bytes_(half_bytes), memory_(2 * half_bytes) {
    config.provider = kind.provider;
    transport_ = kind.open(group_of(bootstrap), config, soon());
    region_ = transport_->register_region(memory_);
    const std::string own = encode_region(transport_->wire_region(region_));
    const std::vector<std::string> blobs = bootstrap.all_gather(own, "exchanging regions", soon());
    for (std::size_t rank = 0; rank < blobs.size(); ++rank) {
      const auto wire = decode_region(blobs[rank]);
      require(wire.has_value(), "the region of rank {} cannot be read", rank);
      peers_.push_back(transport_->import_region(Rank(static_cast<std::int32_t>(rank)), *wire));
    }
  }

  Transport& transport() { return *transport_; }
  Bootstrap& bootstrap() { return bootstrap_; }
  Rank rank() const { return transport_->rank(); }
  int num_ranks() const { return transport_->num_ranks(); }
  LocalRegion region() const { return region_; }
  PeerRegion peer_region(Rank peer) const { return peers_[peer.index()]; }

  std::span<std::byte> outgoing() { return std::span(memory_).first(half_bytes_); }
  std::span<std::byte> incoming() { return std::span(memory_).last(half_bytes_); }

  // From an offset of outgoing() to an offset of the peer's incoming().
  Put put_of(Rank peer, std::size_t from, std::size_t to, std::size_t bytes) const {
    return Put{.source = region_,
               .source_offset = from,
               .target = peers_[peer.index()],
               .target_offset = half_bytes_ + to,
               .bytes = bytes};
  }
  Put counted_put(Rank peer, std::size_t at, std::size_t bytes, const ArrivalKey& key) const {
    Put put = put_of(peer, at, at, bytes);
    put.arrival = key;
    return put;
  }

  void await(Rank source, const ArrivalKey& key, std::uint64_t expected,
             const char* stage = "test") {
    transport_->await_arrival({key, source, expected, stage}, soon());
  }

  // Collective: nobody goes on before everything of everybody is complete and here.
  void meet(const char* what) {
    transport_->flush(soon(), what);
    bootstrap_.barrier(what, soon());
  }

  void drop_transport() { transport_.reset(); }
  // For whoever uses it from now on; of this, only memory and puts may be used then.
  std::unique_ptr<Transport> take_transport() { return std::move(transport_); }

 private:
  Bootstrap& bootstrap_;
  std::size_t half_bytes_;
  std::vector<std::byte> memory_;
  std::unique_ptr<Transport> transport_;
  LocalRegion region_;
  std::vector<PeerRegion> peers_;
};

// A byte that tells who wrote it, where and in which round.
inline std::byte pattern_byte(Rank writer, std::size_t position, std::size_t round = 0) {
  return static_cast<std::byte>((position * 31 + writer.index() * 101 + round * 7 + 13) & 0xff);
}

inline void fill_pattern(std::span<std::byte> bytes, Rank writer, std::size_t round = 0) {
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = pattern_byte(writer, i, round);
}

inline void require_pattern(std::span<const std::byte> bytes, std::size_t begin, Rank writer,
                            std::size_t round = 0) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const std::byte expected = pattern_byte(writer, begin + i, round);
    require(bytes[i] == expected, "byte {} of {} from rank {} is {}, expected {}", i, bytes.size(),
            writer.value(), static_cast<int>(bytes[i]), static_cast<int>(expected));
  }
}

}  // namespace moelink::test
