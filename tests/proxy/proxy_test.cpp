// The proxy's thread: what it carries, how it fails, how it rests.
#include "proxy/proxy.hpp"

#include <gtest/gtest.h>

#include <sched.h>

#include <functional>
#include <string>

#include "conformance/texts.hpp"
#include "proxy/loopback_pair.hpp"
#include "transport/chaos/chaos_transport.hpp"

namespace moelink::test {
namespace {

using std::chrono::milliseconds;

std::string text_of_error(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

void await_at_receiver(LoopbackPair& pair, std::uint32_t counter, std::uint64_t expected) {
  pair.receiver->await_arrival({{Epoch(1), counter}, Rank(0), expected, "test"}, soon_enough());
}

TEST(Proxy, CarriesCommandsOverManyWrapsOfItsRing) {
  LoopbackPair pair;
  Proxy proxy(std::move(pair.sender), {.rings = {.num_lanes = 1, .num_slots = 4}});
  for (std::size_t i = 0; i < 1000; ++i) {
    pair.outgoing[i] = static_cast<std::byte>(i % 251);
    if (i % 100 == 99) await_at_receiver(pair, 0, i - 50);
    EXPECT_EQ(proxy.push(0, command_of(pair.put_of(i, 1)), soon_enough()), i);
  }
  await_at_receiver(pair, 0, 1000);
  proxy.await_completed(0, 999, soon_enough());
  for (std::size_t i = 0; i < 1000; ++i) {
    ASSERT_EQ(pair.incoming[i], static_cast<std::byte>(i % 251));
  }
  EXPECT_EQ(proxy.statistics().num_commands, 1000U);
}

TEST(Proxy, ServesTheLanesOfSeveralProducers) {
  constexpr std::uint32_t kNumLanes = 4;
  constexpr std::uint64_t kNumPuts = 500;
  LoopbackPair pair;
  auto chaos = make_chaos_transport(std::move(pair.sender), {.seed = 3});
  Proxy proxy(std::move(chaos), {.rings = {.num_lanes = kNumLanes, .num_slots = 8}});
  std::vector<std::thread> producers;
  for (std::uint32_t lane = 0; lane < kNumLanes; ++lane) {
    producers.emplace_back([&, lane] {
      std::uint64_t last = 0;
      for (std::uint64_t i = 0; i < kNumPuts; ++i) {
        last = proxy.push(lane, command_of(pair.put_of(lane * 1000, 300, lane)), soon_enough());
      }
      proxy.await_completed(lane, last, soon_enough());
    });
  }
  for (std::uint32_t lane = 0; lane < kNumLanes; ++lane) await_at_receiver(pair, lane, kNumPuts);
  for (std::thread& producer : producers) producer.join();
  EXPECT_EQ(proxy.statistics().num_commands, kNumLanes * kNumPuts);
}

TEST(Proxy, CountsWhatArrives) {
  LoopbackPair pair;
  const LocalRegion back = pair.sender->register_region(pair.outgoing);
  const PeerRegion target = pair.receiver->import_region(Rank(0), pair.sender->wire_region(back));
  Proxy proxy(std::move(pair.sender), {});
  const ArrivalWait wait{{Epoch(1), 2}, Rank(1), 1, "combine"};
  const std::string late = text_of_error(
      [&] { proxy.await_arrivals(std::span(&wait, 1), Deadline::after(milliseconds(20))); });
  EXPECT_TRUE(mentions(late, {"timeout", "rank 0", "combine", "rank 1", "expected 1", "seen 0"}));
  Put put = pair.put_of(0, 8, 2);
  put.target = target;
  put.source = LocalRegion(0);
  pair.receiver->put(put, soon_enough());
  proxy.await_arrivals(std::span(&wait, 1), soon_enough());
}

TEST(Proxy, FullLaneGivesUpAtTheDeadlineAndGoesOnAfterwards) {
  TransportConfig config;
  config.max_outstanding = 2;
  LoopbackPair pair(config);
  Proxy proxy(std::move(pair.sender), {.rings = {.num_lanes = 1, .num_slots = 4}});
  std::uint64_t num_pushed = 0;
  const std::string text = text_of_error([&] {
    for (;; ++num_pushed) {
      proxy.push(0, command_of(pair.put_of(0, 8)), Deadline::after(milliseconds(50)));
    }
  });
  EXPECT_EQ(num_pushed, 6U);  // two at the receiver, four in the lane
  EXPECT_TRUE(mentions(text, {"timeout", "push (rank 0)", "lane 0", "4 slots", "50 ms"}));
  EXPECT_GT(proxy.statistics().num_refusals, 0U);
  await_at_receiver(pair, 0, num_pushed);
  proxy.await_completed(0, num_pushed - 1, soon_enough());
}

TEST(Proxy, FirstErrorReachesEveryThreadWithEveryCall) {
  LoopbackPair pair;
  pair.receiver->close();
  Proxy proxy(std::move(pair.sender), {.rings = {.num_lanes = 2, .num_slots = 4}});
  const ArrivalWait never{{Epoch(1), 0}, Rank(0), 1, "dispatch"};
  std::string text_of_waiter;
  std::thread waiter([&] {
    text_of_waiter =
        text_of_error([&] { proxy.await_arrivals(std::span(&never, 1), soon_enough()); });
  });
  proxy.push(0, command_of(pair.put_of(0, 8)), soon_enough());
  waiter.join();  // long before its own deadline
  const std::vector<std::string> words = {"peer lost", "rank 0", "put", "rank 1", "closed"};
  EXPECT_TRUE(mentions(text_of_waiter, words));
  const ProxyCommand next = command_of(pair.put_of(0, 8));
  EXPECT_EQ(text_of_error([&] { proxy.push(1, next, soon_enough()); }), text_of_waiter);
  EXPECT_EQ(text_of_error([&] { proxy.await_completed(0, 0, soon_enough()); }), text_of_waiter);
  EXPECT_EQ(text_of_error([&] { proxy.run([](Transport&) {}, soon_enough()); }), text_of_waiter);
  EXPECT_EQ(text_of_error([&] { proxy.check(); }), text_of_waiter);
  const LaneView lane(proxy.ring_memory(), {.num_lanes = 2, .num_slots = 4}, 1);
  EXPECT_EQ(std::atomic_ref(lane.progress().failed).load(), 1U);
}

TEST(Proxy, CommandWithoutRoomForTooLongIsAnErrorThatNamesLaneAndPeer) {
  TransportConfig config;
  config.max_outstanding = 1;
  LoopbackPair pair(config);
  Proxy proxy(std::move(pair.sender), {.timeout = milliseconds(50)});
  for (int i = 0; i < 3; ++i) proxy.push(0, command_of(pair.put_of(0, 8)), soon_enough());
  const std::string text = text_of_error([&] { proxy.await_completed(0, 2, soon_enough()); });
  EXPECT_TRUE(mentions(text, {"timeout", "rank 0", "lane 0", "command 1", "rank 1", "50 ms"}));
}

TEST(Proxy, BadCommandsAreErrorsNotCrashes) {
  {
    LoopbackPair pair;
    Proxy proxy(std::move(pair.sender), {});
    ProxyCommand command = command_of(pair.put_of(0, 8));
    command.kind = static_cast<CommandKind>(77);
    proxy.push(0, command, soon_enough());
    const std::string text = text_of_error([&] { proxy.await_completed(0, 0, soon_enough()); });
    EXPECT_TRUE(mentions(text, {"invalid argument", "kind 77"}));
  }
  LoopbackPair pair;
  Proxy proxy(std::move(pair.sender), {});
  proxy.push(0, command_of(pair.put_of(LoopbackPair::kBytes, 1)), soon_enough());
  const std::string text = text_of_error([&] { proxy.await_completed(0, 0, soon_enough()); });
  EXPECT_TRUE(mentions(text, {"invalid argument", "source bytes", "65536"}));
}

TEST(Proxy, SleepsWhenIdleAndWakesForACommand) {
  LoopbackPair pair;
  Proxy proxy(std::move(pair.sender),
              {.idle_before_sleep = milliseconds(1), .max_sleep = std::chrono::seconds(30)});
  const Deadline deadline = soon_enough();
  while (proxy.statistics().num_sleeps == 0 && !deadline.expired()) std::this_thread::yield();
  EXPECT_GE(proxy.statistics().num_sleeps, 1U);
  proxy.push(0, command_of(pair.put_of(0, 8)), soon_enough());  // or it would sleep for longer
  await_at_receiver(pair, 0, 1);
}

TEST(Proxy, NoticesAProducerThatCannotRing) {
  LoopbackPair pair;
  const RingLayout layout{.num_lanes = 1, .num_slots = 8};
  RingMemory memory(layout.total_bytes());
  ProxyConfig config{.rings = layout, .max_sleep = milliseconds(2)};
  config.ring_memory = std::span(memory.data(), layout.total_bytes());
  Proxy proxy(std::move(pair.sender), config);
  LaneWriter foreign(LaneView(proxy.ring_memory(), layout, 0));
  const Deadline deadline = soon_enough();
  while (proxy.statistics().num_sleeps == 0 && !deadline.expired()) std::this_thread::yield();
  ASSERT_TRUE(foreign.try_push(command_of(pair.put_of(0, 8))));
  await_at_receiver(pair, 0, 1);
}

TEST(Proxy, RunsActionsOnItsOwnThreadAndThrowsWhatTheyThrow) {
  LoopbackPair pair;
  Proxy proxy(std::move(pair.sender), {});
  std::thread::id seen;
  proxy.run([&](Transport&) { seen = std::this_thread::get_id(); }, soon_enough());
  EXPECT_NE(seen, std::this_thread::get_id());
  const std::string text = text_of_error([&] {
    proxy.run([](Transport& transport) { transport.deregister_region(LocalRegion(9)); },
              soon_enough());
  });
  EXPECT_TRUE(mentions(text, {"region 9"}));
  EXPECT_NO_THROW(proxy.check());  // the error was the action's, not the proxy's
}

TEST(Proxy, IsBoundToItsCore) {
  LoopbackPair pair;
  Proxy proxy(std::move(pair.sender), {.core = ::sched_getcpu()});
  int num_cores = 0;
  proxy.run(
      [&](Transport&) {
        cpu_set_t cores;
        ::sched_getaffinity(0, sizeof(cores), &cores);
        num_cores = CPU_COUNT(&cores);
      },
      soon_enough());
  EXPECT_EQ(num_cores, 1);
}

TEST(Proxy, NamesEveryFieldOfItsConfigThatIsOutOfRange) {
  LoopbackPair pair;
  ProxyConfig config{
      .rings = {.num_lanes = 0, .num_slots = 6}, .core = -2, .timeout = milliseconds(0)};
  const std::string text = text_of_error([&] { Proxy proxy(std::move(pair.sender), config); });
  EXPECT_TRUE(mentions(text, {"num_lanes is 0", "num_slots is 6", "core is -2", "timeout is 0"}));
  LoopbackPair second;
  Proxy proxy(std::move(second.sender), {});
  EXPECT_TRUE(mentions(text_of_error([&] { proxy.push(1, ProxyCommand{}, soon_enough()); }),
                       {"push (rank 0)", "lane is 1", "0 to 0"}));
}

}  // namespace
}  // namespace moelink::test
