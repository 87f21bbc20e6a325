// Chaos must happen, or what passes under it proves nothing.
#include "transport/chaos/chaos_transport.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "transport/loopback/loopback_transport.hpp"

namespace moelink {
namespace {

struct Lone {
  explicit Lone(std::uint64_t seed) : memory(4096) {
    TransportGroup group{.rank = Rank(0), .num_ranks = 1};
    group.all_gather = [](const std::string& blob, const char*, const Deadline&) {
      return std::vector<std::string>{blob};
    };
    auto loopback = open_loopback_transport(group, {}, Deadline::after(std::chrono::seconds(10)));
    inner = loopback.get();
    transport = make_chaos_transport(std::move(loopback), {.seed = seed});
    region = transport->register_region(memory);
    self = transport->import_region(Rank(0), transport->wire_region(region));
  }

  Put put_of(std::size_t offset, std::size_t bytes) const {
    return {.source = region,
            .source_offset = offset,
            .target = self,
            .target_offset = 2048 + offset,
            .bytes = bytes,
            .arrival = ArrivalKey{Epoch(0), 0}};
  }

  std::vector<std::byte> memory;
  Transport* inner = nullptr;
  std::unique_ptr<Transport> transport;
  LocalRegion region;
  PeerRegion self;
};

// What became of each of many attempts to put: refused, or how many pieces have gone on so far.
std::vector<std::uint64_t> history_of(Lone& lone) {
  std::vector<std::uint64_t> history;
  for (std::size_t i = 0; i < 300; ++i) {
    const bool refused = lone.transport->try_put(lone.put_of(i, 8)) == PutResult::kRefused;
    lone.transport->progress();
    history.push_back(refused ? ~std::uint64_t{0} : lone.inner->num_accepted());
  }
  return history;
}

TEST(ChaosTransport, RefusesDelaysAndSplits) {
  Lone lone(1);
  const std::vector<std::uint64_t> history = history_of(lone);
  const auto num_refused = std::count(history.begin(), history.end(), ~std::uint64_t{0});
  EXPECT_GT(num_refused, 10);
  EXPECT_LT(num_refused, 290);
  EXPECT_LT(lone.transport->completed_through(), lone.transport->num_accepted());  // delayed
  lone.transport->flush(Deadline::after(std::chrono::seconds(10)));
  EXPECT_GT(lone.inner->num_accepted(), lone.transport->num_accepted());  // split
  lone.transport->progress();
  EXPECT_EQ(lone.transport->arrivals().seen({Epoch(0), 0}, Rank(0)),
            lone.transport->num_accepted());
}

TEST(ChaosTransport, ReordersPuts) {
  Lone lone(2);
  for (std::size_t i = 0; i < 2048; ++i) lone.memory[i] = std::byte{1};
  bool reordered = false;
  std::size_t num_sent = 0;
  for (std::size_t round = 0; round < 500; ++round) {
    const Put put = lone.put_of(num_sent % 2000, 1);
    if (lone.transport->try_put(put) == PutResult::kAccepted) ++num_sent;
    lone.transport->progress();
    for (std::size_t i = 1; i < num_sent; ++i) {
      reordered |= lone.memory[2048 + i] == std::byte{1} && lone.memory[2047 + i] == std::byte{0};
    }
  }
  EXPECT_TRUE(reordered);
}

TEST(ChaosTransport, DoesTheSameForTheSameSeed) {
  Lone first(7);
  Lone again(7);
  Lone other(8);
  const std::vector<std::uint64_t> history = history_of(first);
  EXPECT_EQ(history, history_of(again));
  EXPECT_NE(history, history_of(other));
}

}  // namespace
}  // namespace moelink
