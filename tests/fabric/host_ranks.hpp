// Ranks that are processes on hosts of their own, joined by the TCP rendezvous and libfabric.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bootstrap/launcher.hpp"
#include "conformance/forked_bootstrap.hpp"
#include "conformance/transport_rank.hpp"
#include "fabric/namespaces.hpp"
#include "moelink/group.hpp"
#include "transport/fabric.hpp"

namespace moelink::test {

// `body` runs in one process on each of the first hosts; its bootstrap does not use the network, so
// that it works whatever befalls that. Element i is what ended rank i, empty if nothing did.
inline std::vector<std::string> run_on_hosts(const HostNetwork& network, int num_ranks,
                                             const std::function<void(Bootstrap&)>& body) {
  return run_process_ranks(num_ranks, [&](Bootstrap& control) {
    network.enter(control.rank().value());
    body(control);
  });
}

// Several processes on each host, numbered host by host; how each ended.
inline std::vector<RankOutcome> run_forked_ranks_on_hosts(
    const HostNetwork& network, int num_ranks, int ranks_per_host,
    const std::function<void(Bootstrap&)>& body) {
  return run_forked_ranks(num_ranks, [&](Bootstrap& control) {
    network.enter(control.rank().value() / ranks_per_host);
    body(control);
  });
}

// The same as texts, as above.
inline std::vector<std::string> run_on_hosts(const HostNetwork& network, int num_ranks,
                                             int ranks_per_host,
                                             const std::function<void(Bootstrap&)>& body) {
  return run_process_ranks(num_ranks, [&](Bootstrap& control) {
    network.enter(control.rank().value() / ranks_per_host);
    body(control);
  });
}

inline RendezvousConfig job_config(Rank rank, int num_ranks) {
  return {.rank = rank,
          .num_ranks = num_ranks,
          .host = HostNetwork::address(0),
          .port = kDefaultRendezvousPort,
          .secret = "the job's secret"};
}

inline Group connect_job(const Bootstrap& control, std::chrono::milliseconds timeout =
                                                       test_timeout(std::chrono::seconds(30))) {
  return Group::connect(job_config(control.rank(), control.num_ranks()), {.timeout = timeout});
}

inline const TransportKind& tcp_kind() {
  static const TransportKind kind{.name = "LibfabricTcp",
                                  .run = run_process_ranks,
                                  .open = open_libfabric_transport,
                                  .provider = "tcp"};
  return kind;
}

// Asked in a process of its own: libfabric and forks do not mix.
inline std::string missing_libfabric() {
  return run_process_ranks(1, [](Bootstrap&) {
    const FabricReport report = report_fabric();
    if (!report.problem.empty()) throw std::runtime_error(report.problem);
  })[0];
}

// Called by SetUp: what cannot run here is skipped; scripts/test_cpp.sh shows these lines.
inline void skip_because(const std::string& reason) {
  if (!reason.empty()) GTEST_SKIP() << "Skipped here: " << reason;
}

inline void skip_without_hosts() { skip_because(why_no_hosts()); }

inline void skip_without_fabric() {
  skip_without_hosts();
  if (!::testing::Test::IsSkipped()) skip_because(missing_libfabric());
}

// Each rank puts `block_bytes` of a pattern to every other rank, in each of `rounds`, into a block
// of its own there; all wait for all, and look at every byte.
struct PutTraffic {
  std::size_t block_bytes = 0;
  std::size_t put_bytes = 0;  // a block is cut into puts of this size
  std::size_t num_rounds = 0;
  std::uint32_t counter = 0;

  std::size_t puts_per_block() const { return (block_bytes + put_bytes - 1) / put_bytes; }
};

inline void send_block(TransportRank& rank, Rank peer, const PutTraffic& traffic) {
  for (std::size_t at = 0; at < traffic.block_bytes; at += traffic.put_bytes) {
    const std::size_t bytes = std::min(traffic.put_bytes, traffic.block_bytes - at);
    Put put = rank.put_of(peer, at, rank.rank().index() * traffic.block_bytes + at, bytes);
    put.arrival = ArrivalKey{Epoch(1), traffic.counter};
    rank.transport().put(put, soon(), "send");
  }
}

inline void exchange_blocks(TransportRank& rank, const PutTraffic& traffic) {
  for (std::size_t round = 1; round <= traffic.num_rounds; ++round) {
    fill_pattern(rank.outgoing().first(traffic.block_bytes), rank.rank(), round);
    for (int step = 1; step < rank.num_ranks(); ++step) {
      send_block(rank, Rank((rank.rank().value() + step) % rank.num_ranks()), traffic);
    }
    for (Rank peer(0); peer.value() < rank.num_ranks(); peer = peer.next()) {
      if (peer == rank.rank()) continue;
      rank.await(peer, {Epoch(1), traffic.counter}, round * traffic.puts_per_block(), "receive");
      require_pattern(
          rank.incoming().subspan(peer.index() * traffic.block_bytes, traffic.block_bytes), 0, peer,
          round);
    }
    rank.meet("end of round");
  }
}

}  // namespace moelink::test
