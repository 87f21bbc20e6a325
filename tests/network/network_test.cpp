// Messages between ranks: in order, with credits, over a transport that keeps no order.
#include "network/network.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

#include "conformance/chaotic_ranks.hpp"
#include "conformance/outcomes.hpp"
#include "conformance/thread_ranks.hpp"
#include "conformance/transport_rank.hpp"

namespace moelink::test {
namespace {

constexpr MessageChannel kPlain = MessageChannel::kControl;  // every second release is told
constexpr MessageChannel kTokens = MessageChannel::kTokens;  // every release is told
constexpr std::uint64_t kNumSlots = 4;
constexpr std::size_t kCapacity = 192;

MessageArea small_area(int num_ranks) {
  MessageArea area{.topology = {num_ranks, num_ranks}};
  const std::size_t slot_bytes = sizeof(MessageHeader) + kCapacity;
  for (MessageArea::Channel& channel : area.channels) {
    channel.ring = {.num_slots = kNumSlots, .slot_bytes = slot_bytes, .num_to_ack = 2};
  }
  area.channels[static_cast<std::size_t>(kTokens)].ring.num_to_ack = 1;
  return area;
}

std::unique_ptr<Network> open_small_network(Bootstrap& bootstrap) {
  const TransportConfig config{.num_counters = num_message_counters(),
                               .num_epoch_lanes = kNumMessageLanes};
  const TransportGroup group = group_of(bootstrap);
  return std::make_unique<Network>(open_transport("loopback", group, config, soon()), group,
                                   small_area(bootstrap.num_ranks()), soon());
}

// One rank's end of it, that of two ranks unless more are mentioned.
struct Endpoint {
  explicit Endpoint(Bootstrap& with)
      : bootstrap(with), peer(1 - with.rank().value()), network(open_small_network(with)) {}

  // All sizes from zero to a whole slot come about, and bytes tell their message.
  static std::size_t size_of(std::uint64_t number) { return number * 37 % (kCapacity + 1); }

  void send(MessageChannel channel, Rank to, std::uint64_t number) {
    const std::span<std::byte> slot = network->try_slot(channel, to);
    require(slot.size() == kCapacity, "message {}: a slot of {} bytes", number, slot.size());
    fill_pattern(slot.first(size_of(number)), bootstrap.rank(), number);
    network->send(channel, to, size_of(number), soon());
  }
  void send_to_peer(MessageChannel channel, std::uint64_t number) { send(channel, peer, number); }

  bool has_room(MessageChannel channel) { return !network->try_slot(channel, peer).empty(); }

  void check(MessageChannel channel, Rank source, std::uint64_t number, std::size_t ahead = 0) {
    const std::byte* const content = network->peek(channel, source, ahead);
    require(content != nullptr, "message {} of rank {} is not here", number, source.value());
    const std::size_t bytes = network->peeked_bytes(channel, source, ahead);
    require(bytes == size_of(number), "message {}: {} bytes", number, bytes);
    require_pattern({content, bytes}, 0, source, number);
  }
  void release(MessageChannel channel) { network->release(channel, peer, soon()); }

  // Until everything sent so far has been counted at all ranks; nothing is on its way then.
  void settle() {
    network->flush(soon());
    bootstrap.barrier("everything has left", soon());
    for (int i = 0; i < 1000; ++i) network->progress();
    bootstrap.barrier("everything has arrived", soon());
  }
  // Afterwards the ends may go, in any order.
  void leave() { settle(); }

  Bootstrap& bootstrap;
  Rank peer;
  std::unique_ptr<Network> network;
};

struct Kind {
  const char* name;
  std::vector<std::string> (*run)(int num_ranks, const std::function<void(Bootstrap&)>& body);
};

void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

class Networks : public ::testing::TestWithParam<Kind> {
 protected:
  static void run(int num_ranks, const std::function<void(Endpoint&)>& body) {
    const auto errors = GetParam().run(num_ranks, [&](Bootstrap& bootstrap) {
      Endpoint endpoint(bootstrap);
      body(endpoint);
      endpoint.leave();
    });
    EXPECT_EQ(errors, std::vector<std::string>(errors.size()));
  }
};

// Sends to the rank if there is room, and takes what has come from it. Returns whether all is done.
bool exchange_some(Endpoint& one, MessageChannel channel, Rank with, std::uint64_t last) {
  Network& network = *one.network;
  const std::uint64_t next = network.num_sent(channel, with) + 1;
  if (next <= last && !network.try_slot(channel, with).empty()) one.send(channel, with, next);
  while (network.peek(channel, with) != nullptr) {
    one.check(channel, with, network.num_released(channel, with) + 1);
    network.release(channel, with, soon());
  }
  return next > last && network.num_released(channel, with) == last;
}

void exchange_with_all(Endpoint& one, MessageChannel channel, std::uint64_t last) {
  const Rank self = one.bootstrap.rank();
  const Deadline deadline = soon();
  for (bool done = false; !done;) {
    require(!deadline.expired(), "rank {} waits for messages", self.value());
    if (one.network->progress() == 0) std::this_thread::yield();
    done = true;
    for (Rank rank(0); rank.value() < one.bootstrap.num_ranks(); rank = rank.next()) {
      if (rank != self && !exchange_some(one, channel, rank, last)) done = false;
    }
  }
}

TEST_P(Networks, MessagesComeInOrderAndWholeThroughRingsThatWrapManyTimes) {
  run(3, [](Endpoint& one) {
    for (const MessageChannel channel : {kPlain, kTokens, MessageChannel::kLowLatency}) {
      exchange_with_all(one, channel, 300);
      require(one.network->peek(channel, Rank((one.bootstrap.rank().value() + 1) % 3)) == nullptr,
              "a message too many");
    }
    require(one.network->statistics().num_messages == 600, "another number of messages of tokens");
  });
}

TEST_P(Networks, FullRingGivesNoSlotUntilReleasesAreTold) {
  run(2, [](Endpoint& one) {
    for (std::uint64_t i = 1; i <= kNumSlots; ++i) one.send_to_peer(kPlain, i);
    for (std::uint64_t i = 1; i <= kNumSlots; ++i) one.send_to_peer(kTokens, i);
    require(!one.has_room(kPlain) && !one.has_room(kTokens), "the rings are not full");
    one.settle();
    require(!one.has_room(kPlain) && !one.has_room(kTokens), "room, though nothing was released");
    one.release(kPlain);
    one.release(kTokens);
    one.settle();
    require(!one.has_room(kPlain), "a single release was told");
    require(one.has_room(kTokens), "a release was not told");
    one.send_to_peer(kTokens, kNumSlots + 1);
    require(!one.has_room(kTokens), "two slots for one release");
    one.release(kPlain);
    one.settle();
    one.send_to_peer(kPlain, kNumSlots + 1);
    one.send_to_peer(kPlain, kNumSlots + 2);
    require(!one.has_room(kPlain), "three slots for two releases");
    one.settle();
    one.check(kPlain, one.peer, kNumSlots + 2, kNumSlots - 1);
  });
}

TEST_P(Networks, PeekAheadSeesLaterMessagesWhichStayUntilTheyAreReleased) {
  run(2, [](Endpoint& one) {
    require(one.network->peek(kPlain, one.peer) == nullptr, "a message before any was sent");
    for (std::uint64_t i = 1; i <= 3; ++i) one.send_to_peer(kPlain, i);
    one.settle();
    for (std::size_t ahead = 0; ahead < 3; ++ahead) one.check(kPlain, one.peer, ahead + 1, ahead);
    require(one.network->peek(kPlain, one.peer, 3) == nullptr, "a message that was not sent");
    const std::byte* const second = one.network->peek(kPlain, one.peer, 1);
    one.release(kPlain);
    require(one.network->peek(kPlain, one.peer) == second, "the second message has moved");
    one.check(kPlain, one.peer, 2);
    one.check(kPlain, one.peer, 3, 1);
    require(one.network->num_released(kPlain, one.peer) == 1, "another number of releases");
    require(one.network->num_sent(kPlain, one.peer) == 3, "another number of messages");
    require(one.network->peek(MessageChannel::kLowLatency, one.peer) == nullptr, "channels mix");
  });
}

TEST_P(Networks, ProbesAreNotNoticed) {
  run(2, [](Endpoint& one) {
    one.send_to_peer(kPlain, 1);
    for (int i = 0; i < 50; ++i) one.network->probe(one.peer);
    one.settle();
    one.check(kPlain, one.peer, 1);
    require(one.network->peek(kPlain, one.peer, 1) == nullptr, "a probe is a message");
  });
}

INSTANTIATE_TEST_SUITE_P(Kinds, Networks,
                         ::testing::Values(Kind{"Loopback", run_thread_ranks},
                                           Kind{"Chaos", run_chaotic_ranks}),
                         [](const auto& instance) { return instance.param.name; });

// Rank 1 goes; rank 0 has messages of it, and some for it.
TEST(Network, LostPeerIsForgivenWhereOnlyItWouldNoticeAndNamedElsewhere) {
  const auto errors = run_thread_ranks(2, [](Bootstrap& bootstrap) {
    Endpoint one(bootstrap);
    one.send_to_peer(kTokens, 1);
    one.send_to_peer(kTokens, 2);
    one.settle();
    if (bootstrap.rank() == Rank(1)) one.network.reset();
    bootstrap.barrier("rank 1 has gone", soon());
    if (bootstrap.rank() == Rank(1)) return;
    one.check(kTokens, one.peer, 1);
    one.release(kTokens);
    one.check(kTokens, one.peer, 2);  // what has come is of use, whatever became of its sender
    one.release(kTokens);
    one.network->flush(soon());
    require_failure(outcome_of([&] { one.send_to_peer(kTokens, 3); }), ErrorCode::kPeerLost,
                    {"rank 0: send: rank 1"});
    require_failure(outcome_of([&] { one.network->check_peer(Rank(1), "receive"); }),
                    ErrorCode::kPeerLost, {"rank 0: receive: rank 1"});
    one.network->progress();
  });
  EXPECT_EQ(errors, std::vector<std::string>(errors.size()));
}

TEST(Network, OfOneNodeHasNoRingsAndOpens) {
  const auto errors = run_thread_ranks(2, [](Bootstrap& bootstrap) {
    MessageArea area = small_area(2);
    area.topology = {2, 1};
    require(area.total_bytes() == 0, "there are rings");
    const TransportGroup group = group_of(bootstrap);
    Network network(open_transport("loopback", group, {}, soon()), group, area, soon());
    require(network.describe() == "loopback", "another transport: {}", network.describe());
    bootstrap.barrier("end of test", soon());
  });
  EXPECT_EQ(errors, std::vector<std::string>(errors.size()));
}

TEST(MessageMemory, IsZeroedAndItsFailureNamesTheSize) {
  const MessageMemory memory(10'000);
  EXPECT_EQ(memory.bytes().size(), 10'000U);
  EXPECT_EQ(*memory.at(9'999), std::byte{0});
  const Outcome outcome = outcome_of([] { MessageMemory(std::size_t{1} << 60); });
  EXPECT_EQ(outcome.code, ErrorCode::kSystem);
  EXPECT_NE(outcome.text.find("1152921504606846976 bytes for messages"), std::string::npos)
      << outcome.text;
}

}  // namespace
}  // namespace moelink::test
