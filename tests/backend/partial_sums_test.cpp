// Sums that come back over the network, and the wait for them.
#include "backend/cpu/network/partial_sums.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "backend/cpu/network/low_latency_courier.hpp"
#include "backend/fake_regions.hpp"
#include "conformance/outcomes.hpp"
#include "conformance/thread_ranks.hpp"
#include "conformance/transport_rank.hpp"
#include "protocol/placement.hpp"
#include "transport/open_transport.hpp"

namespace moelink::test {
namespace {

using std::chrono::milliseconds;

constexpr MessageChannel kChannel = MessageChannel::kTokens;
constexpr Epoch kEpoch(5);
constexpr PartialMessage kMessage{.row_bytes = 64, .num_weights = 1};
constexpr std::size_t kRowsPerMessage = 2;
constexpr std::int64_t kNumTokens = 14;  // of which every second goes to the other rank
constexpr std::size_t kNumSums = 7;
constexpr std::uint64_t kNumSlots = 2;

MessageArea area_of_test() {
  MessageArea area{.topology = {2, 2}};
  for (MessageArea::Channel& channel : area.channels) {
    channel.ring = {
        .num_slots = kNumSlots, .slot_bytes = sizeof(MessageHeader) + 192, .num_to_ack = 1};
  }
  return area;
}

// Rank 0 has tokens; rank 1 carries them and sends back their sums.
struct RankOfTest {
  RankOfTest(Bootstrap& with, FakeRanks& fakes, milliseconds timeout,
             Survival survival = Survival::kRaise)
      : bootstrap(with) {
    context.rank = with.rank();
    context.topology = {2, 2};
    context.relay = {.topology = {2, 2}, .path = NetworkPath::kDirect};
    context.timeout = timeout;
    context.survival = survival;
    context.epoch = kEpoch;
    context.control = fakes.areas[with.rank().index()];
    context.signals = std::make_unique<SignalBoard>(context.control, context.cores, survival);
    const TransportConfig config{.num_counters = num_message_counters(),
                                 .num_epoch_lanes = kNumMessageLanes};
    const TransportGroup group = group_of(with);
    context.network = std::make_unique<Network>(open_transport("loopback", group, config, soon()),
                                                group, area_of_test(), soon());
    context.remote = std::make_unique<RemoteControl>(context.control, *context.network,
                                                     context.signals->masks(), survival, timeout);
    state.num_ranks = 2;
    state.num_tokens = kNumTokens;
    for (std::int32_t token = 0; token < kNumTokens; ++token) {
      state.send_row.push_back(static_cast<std::int32_t>(kNoRow));
      state.send_row.push_back(token % 2 == 1 ? token / 2 : static_cast<std::int32_t>(kNoRow));
    }
  }

  // Sums from the given place on, whose bytes and weights tell it.
  void send(std::size_t first, std::size_t num_rows, Epoch epoch = kEpoch) {
    const Deadline deadline = soon();
    std::span<std::byte> slot = context.network->try_slot(kChannel, Rank(0));
    for (; slot.empty(); slot = context.network->try_slot(kChannel, Rank(0))) {
      require(!deadline.expired(), "no room for sums {}", first);
      context.network->progress();
      std::this_thread::yield();
    }
    auto* const weights = reinterpret_cast<float*>(slot.data() + kMessage.weights_offset(num_rows));
    for (std::size_t i = 0; i < num_rows; ++i) {
      fill_pattern(slot.subspan(i * kMessage.row_bytes, kMessage.row_bytes), Rank(1), first + i);
      weights[i] = static_cast<float>(first + i);
    }
    context.network->send(kChannel, Rank(0), kMessage.total_bytes(num_rows), deadline, epoch);
  }
  void send_all() {
    for (std::size_t first = 0; first < kNumSums; first += kRowsPerMessage) {
      send(first, std::min(kRowsPerMessage, kNumSums - first));
    }
  }

  Bootstrap& bootstrap;
  CpuContext context;
  RoutingState state;
};

void run_two(milliseconds timeout, Survival survival, const std::function<void(RankOfTest&)>& first,
             const std::function<void(RankOfTest&)>& second) {
  FakeRanks fakes(2);
  const auto errors = run_thread_ranks(2, [&](Bootstrap& bootstrap) {
    RankOfTest rank(bootstrap, fakes, timeout, survival);
    (bootstrap.rank() == Rank(0) ? first : second)(rank);
    bootstrap.barrier("end of test", soon());
  });
  EXPECT_EQ(errors, std::vector<std::string>(2));
}

void run_two(const std::function<void(RankOfTest&)>& first,
             const std::function<void(RankOfTest&)>& second) {
  run_two(std::chrono::seconds(30), Survival::kRaise, first, second);
}

// They are in the ring, or copies.
void require_sums(const PartialSums& partials, std::size_t begin) {
  for (std::size_t i = begin; i < kNumSums; ++i) {
    const auto token = static_cast<std::int64_t>(2 * i + 1);
    const std::byte* const row = partials.row(1, token);
    require(row != nullptr, "the sum of token {} is not here", token);
    require_pattern({row, kMessage.row_bytes}, 0, Rank(1), i);
    require(*partials.weights(1, token) == static_cast<float>(i), "another weight");
    require(partials.row(1, token - 1) == nullptr, "a sum of a token that was not sent");
  }
}

RelayWait wait_of(RankOfTest& rank) {
  return RelayWait(rank.context, Operation::kCombine, Stage::kSendBack, kEpoch);
}

TEST(PartialSumsOfRanks, AreCopiedOutOfAFullRingSoThatTheirSenderGoesOn) {
  run_two(
      [](RankOfTest& rank) {
        PartialSums partials(rank.context, rank.state, kMessage, {true, true});
        RelayWait wait = wait_of(rank);
        partials.await({0, kNumTokens}, wait);  // nothing is released before
        require_sums(partials, 0);
        const Network& network = *rank.context.network;
        require(network.num_released(kChannel, Rank(1)) == 3, "{} messages have left the ring",
                network.num_released(kChannel, Rank(1)));
        partials.release_before(4, soon());
        require_sums(partials, 2);
        partials.release_before(kNumTokens, soon());
        require(network.num_released(kChannel, Rank(1)) == 4, "a message stays in the ring");
      },
      [](RankOfTest& rank) { rank.send_all(); });
}

TEST(PartialSumsOfRanks, AwaitNoMoreThanTheTokensOfTheChunk) {
  run_two(
      [](RankOfTest& rank) {
        PartialSums partials(rank.context, rank.state, kMessage, {true, true});
        RelayWait wait = wait_of(rank);
        partials.await({0, 4}, wait);
        require(partials.row(1, 3) != nullptr, "no sum");
        rank.bootstrap.barrier("the first chunk is here", soon());
        partials.await({4, kNumTokens}, wait);
        require_sums(partials, 0);
      },
      [](RankOfTest& rank) {
        rank.send(0, kRowsPerMessage);
        rank.bootstrap.barrier("the first chunk is here", soon());
        for (std::size_t i = kRowsPerMessage; i < kNumSums; ++i) rank.send(i, 1);
      });
}

TEST(PartialSumsOfRanks, PassOverWhatIsLeftOfEarlierOperations) {
  run_two(
      [](RankOfTest& rank) {
        PartialSums partials(rank.context, rank.state, kMessage, {true, true});
        RelayWait wait = wait_of(rank);
        partials.await({0, kNumTokens}, wait);
        require_sums(partials, 0);
      },
      [](RankOfTest& rank) {
        for (std::uint64_t i = 0; i < 3; ++i) rank.send(20 + i, 1, Epoch(2 + i));
        rank.send_all();
      });
}

TEST(PartialSumsOfRanks, OfALaterOperationSayThatTheirSenderHasGoneOn) {
  run_two(
      [](RankOfTest& rank) {
        PartialSums partials(rank.context, rank.state, kMessage, {true, true});
        RelayWait wait = wait_of(rank);
        require_failure(outcome_of([&] { partials.await({0, kNumTokens}, wait); }),
                        ErrorCode::kPeerLost,
                        {"rank 1 has gone on without this rank (it is at operation 6, not 5)"});
      },
      [](RankOfTest& rank) { rank.send(0, 1, kEpoch.next()); });
}

TEST(PartialSumsOfRanks, BeyondTheTokensThatWereSentAreAnError) {
  run_two(
      [](RankOfTest& rank) {
        PartialSums partials(rank.context, rank.state, kMessage, {true, true});
        const Outcome outcome = outcome_of([&] {
          for (;;) {
            rank.context.network->progress();
            partials.collect();
            std::this_thread::yield();
          }
        });
        require_failure(outcome, ErrorCode::kInternal,
                        {"combine (rank 0): rank 1 sends back more than 7 rows"});
      },
      [](RankOfTest& rank) {
        rank.send_all();
        rank.send(kNumSums, 1);
      });
}

TEST(PartialSumsOfRanks, OfAnAbsentRankAreNotAwaited) {
  run_two(
      [](RankOfTest& rank) {
        PartialSums partials(rank.context, rank.state, kMessage, {true, false});
        RelayWait wait = wait_of(rank);
        partials.await({0, kNumTokens}, wait);
        require(partials.row(1, 1) == nullptr && partials.weights(1, 1) == nullptr, "a sum");
      },
      [](RankOfTest&) {});
}

TEST(PartialSumsOfRanks, OfALateRankAreLeftOutWhereLostRanksAreMasked) {
  run_two(
      milliseconds(50), Survival::kMask,
      [](RankOfTest& rank) {
        PartialSums partials(rank.context, rank.state, kMessage, {true, true});
        RelayWait wait = wait_of(rank);
        partials.await({0, kNumTokens}, wait);
        require(rank.context.signals->masks().is_masked(Rank(1)), "it is not masked");
        require(partials.row(1, 1) == nullptr, "a sum of a lost rank");
        partials.release_before(kNumTokens, soon());
      },
      [](RankOfTest& rank) { rank.send(0, 1); });
}

void wait_in_vain(RelayWait& wait) {
  for (;;) wait.pause(Rank(1), "sent back all sums");
}

TEST(RelayWaits, EndAtTheDeadlineWithOperationStagePeerAndTime) {
  run_two(
      milliseconds(50), Survival::kRaise,
      [](RankOfTest& rank) {
        RelayWait wait = wait_of(rank);
        const Outcome outcome = outcome_of([&] { wait_in_vain(wait); });
        require(outcome.text ==
                    "timeout: combine (rank 0), stage send_back: rank 1 has not sent "
                    "back all sums within 50 ms",
                "another text: {}", outcome.text);
        wait.restart();
        require(!wait.deadline().expired(), "the deadline is the old one");
      },
      [](RankOfTest&) {});
}

TEST(RelayWaits, EndWhenAnybodyGivesUp) {
  run_two(
      [](RankOfTest& rank) {
        RelayWait wait = wait_of(rank);
        require_failure(outcome_of([&] { wait_in_vain(wait); }), ErrorCode::kPeerLost,
                        {"combine (rank 0), stage send_back: rank 1 gave up: it was tired"});
      },
      [](RankOfTest& rank) { rank.context.control->raise_fault("it was tired", kEpoch); });
}

}  // namespace
}  // namespace moelink::test
