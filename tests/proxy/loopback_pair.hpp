// Two ranks of one process that can reach each other, for tests of the proxy.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "bootstrap/threads/thread_bootstrap.hpp"
#include "transport/loopback/loopback_transport.hpp"

namespace moelink::test {

inline Deadline soon_enough() { return Deadline::after(std::chrono::seconds(20)); }

// Rank 0 has the transport that a test gives to a proxy; rank 1 makes progress only when told to.
struct LoopbackPair {
  static constexpr std::size_t kBytes = std::size_t{1} << 16;

  explicit LoopbackPair(const TransportConfig& config = {}) {
    auto bootstraps = ThreadBootstrap::make(2);
    std::array<std::unique_ptr<Transport>, 2> transports;
    const auto open = [&](std::size_t rank) {
      Bootstrap& bootstrap = *bootstraps[rank];
      TransportGroup group{.rank = bootstrap.rank(), .num_ranks = 2};
      group.all_gather = [&](const std::string& blob, const char* what, const Deadline& deadline) {
        return bootstrap.all_gather(blob, what, deadline);
      };
      transports[rank] = open_loopback_transport(group, config, soon_enough());
    };
    std::thread other([&] { open(1); });
    open(0);
    other.join();
    sender = std::move(transports[0]);
    receiver = std::move(transports[1]);
    source = sender->register_region(outgoing);
    const LocalRegion target_region = receiver->register_region(incoming);
    target = sender->import_region(Rank(1), receiver->wire_region(target_region));
  }

  Put put_of(std::size_t offset, std::size_t bytes, std::uint32_t counter = 0) const {
    return {.source = source,
            .source_offset = offset,
            .target = target,
            .target_offset = offset,
            .bytes = bytes,
            .arrival = ArrivalKey{Epoch(1), counter}};
  }

  std::vector<std::byte> outgoing = std::vector<std::byte>(kBytes);
  std::vector<std::byte> incoming = std::vector<std::byte>(kBytes);
  std::unique_ptr<Transport> sender;
  std::unique_ptr<Transport> receiver;
  LocalRegion source;
  PeerRegion target;
};

}  // namespace moelink::test
