// What every transport must do, whether its ranks are threads or processes.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "conformance/outcomes.hpp"
#include "conformance/transport_rank.hpp"

namespace moelink::test {

inline std::string name_of_transport(const ::testing::TestParamInfo<TransportKind>& parameter) {
  return parameter.param.name;
}

class TransportConformance : public ::testing::TestWithParam<TransportKind> {
 protected:
  using Body = std::function<void(TransportRank&)>;

  static constexpr std::size_t kSmall = 4096;

  void SetUp() override {
    const std::string missing = GetParam().missing();
    if (!missing.empty()) GTEST_SKIP() << missing;
  }

  static void run(int num_ranks, const Body& body, std::size_t half_bytes = kSmall,
                  const TransportConfig& config = {}) {
    const std::vector<std::string> errors = GetParam().run(num_ranks, [&](Bootstrap& bootstrap) {
      TransportRank rank(bootstrap, GetParam(), half_bytes, config);
      body(rank);
      rank.meet("end of test");
    });
    EXPECT_EQ(errors, std::vector<std::string>(errors.size()));
  }

  static Rank other_of(const TransportRank& rank) { return Rank(1 - rank.rank().value()); }

  template <class Visit>
  static void for_each_rank(int num_ranks, const Visit& visit) {
    for (Rank rank(0); rank.value() < num_ranks; rank = rank.next()) visit(rank);
  }
};

TEST_P(TransportConformance, SaysWhoItIs) {
  run(3, [](TransportRank& rank) {
    require(rank.num_ranks() == 3, "num_ranks is {}", rank.num_ranks());
    require(rank.rank() == rank.bootstrap().rank(), "rank is {}", rank.rank().value());
    require(!rank.transport().describe().empty(), "no description");
    require(rank.transport().gpu_ladder().back() == GpuRegistration::kPinnedHost,
            "memory of the CPU is not the last resort");
  });
}

TEST_P(TransportConformance, PutsOfAnySizeArriveWhole) {
  constexpr std::size_t kLargest = std::size_t{1} << 20;
  run(
      2,
      [](TransportRank& rank) {
        std::uint64_t round = 0;
        for (const std::size_t bytes :
             {std::size_t{0}, std::size_t{1}, std::size_t{3}, std::size_t{8}, std::size_t{63},
              std::size_t{65}, std::size_t{1000}, std::size_t{4097}, std::size_t{65537},
              kLargest}) {
          const ArrivalKey key{Epoch(1), 5};
          const std::size_t at = std::min<std::size_t>(round, kLargest - bytes);
          fill_pattern(rank.outgoing(), rank.rank(), round);
          rank.transport().put(rank.counted_put(other_of(rank), at, bytes, key), soon());
          rank.await(other_of(rank), key, ++round);
          require_pattern(rank.incoming().subspan(at, bytes), at, other_of(rank), round - 1);
          rank.meet("after a size");
        }
      },
      kLargest);
}

TEST_P(TransportConformance, ManySmallPutsAllArrive) {
  constexpr std::size_t kNumPuts = 3000;
  constexpr std::size_t kBytes = 24;
  run(
      2,
      [](TransportRank& rank) {
        const ArrivalKey key{Epoch(2), 0};
        fill_pattern(rank.outgoing(), rank.rank());
        for (std::size_t i = 0; i < kNumPuts; ++i) {
          rank.transport().put(rank.counted_put(other_of(rank), i * kBytes, kBytes, key), soon());
        }
        rank.await(other_of(rank), key, kNumPuts);
        require_pattern(rank.incoming(), 0, other_of(rank));
      },
      kNumPuts * kBytes);
}

TEST_P(TransportConformance, AllRanksPutToAllRanksAndThemselves) {
  constexpr int kNumRanks = 6;
  constexpr std::size_t kBytes = 500;
  run(kNumRanks, [](TransportRank& rank) {
    const ArrivalKey key{Epoch(3), 1};
    fill_pattern(rank.outgoing(), rank.rank());
    for_each_rank(kNumRanks, [&](Rank peer) {
      Put put = rank.put_of(peer, 0, rank.rank().index() * kBytes, kBytes);
      put.arrival = key;
      rank.transport().put(put, soon());
    });
    std::vector<ArrivalWait> waits;
    for_each_rank(kNumRanks, [&](Rank peer) { waits.push_back({key, peer, 1, "all to all"}); });
    rank.transport().await_arrivals(waits, soon());
    for_each_rank(kNumRanks, [&](Rank peer) {
      require_pattern(rank.incoming().subspan(peer.index() * kBytes, kBytes), 0, peer);
    });
  });
}

TEST_P(TransportConformance, CountsEveryCounterEpochAndSourceByItself) {
  constexpr int kNumRanks = 3;
  constexpr std::uint32_t kNumCounters = 4;
  run(kNumRanks, [](TransportRank& rank) {
    // Of counter c in epoch e, rank r sends e + c + r + 1.
    const auto expected = [](std::uint64_t epoch, std::uint32_t counter, Rank source) {
      return epoch + counter + source.index() + 1;
    };
    const Rank next((rank.rank().value() + 1) % kNumRanks);
    const Rank previous((rank.rank().value() + kNumRanks - 1) % kNumRanks);
    for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
      for (std::uint32_t counter = 0; counter < kNumCounters; ++counter) {
        for (std::uint64_t i = 0; i < expected(epoch, counter, rank.rank()); ++i) {
          rank.transport().put(rank.counted_put(next, 0, i % 5, {Epoch(epoch), counter}), soon());
        }
      }
    }
    // Waited for in the opposite order.
    for (std::uint64_t epoch = 3; epoch-- > 0;) {
      for (std::uint32_t counter = kNumCounters; counter-- > 0;) {
        const ArrivalKey key{Epoch(epoch), counter};
        rank.await(previous, key, expected(epoch, counter, previous));
        const std::uint64_t seen = rank.transport().arrivals().seen(key, previous);
        require(seen == expected(epoch, counter, previous), "counter {} of epoch {} is {}", counter,
                epoch, seen);
        require(rank.transport().arrivals().seen(key, next) == 0 || kNumRanks == 2,
                "a rank is counted that sent nothing");
      }
    }
  });
}

TEST_P(TransportConformance, CountersGrowOnWhenEpochsWrap) {
  constexpr std::uint64_t kNumEpochs = 2 * Immediate::kMaxEpochLanes + 70;
  TransportConfig config;
  config.num_epoch_lanes = 2;
  run(
      2,
      [](TransportRank& rank) {
        for (std::uint64_t epoch = 0; epoch < kNumEpochs; ++epoch) {
          const ArrivalKey key{Epoch(epoch), 63};
          fill_pattern(rank.outgoing().first(8), rank.rank(), epoch);
          rank.transport().put(rank.counted_put(other_of(rank), 0, 8, key), soon());
          rank.await(other_of(rank), key, epoch / 2 + 1);
          require_pattern(rank.incoming().first(8), 0, other_of(rank), epoch);
          rank.transport().flush(soon());
          // The peer may overwrite what has been looked at.
          rank.transport().put(rank.counted_put(other_of(rank), 64, 0, {Epoch(epoch), 1}), soon());
          rank.await(other_of(rank), {Epoch(epoch), 1}, epoch / 2 + 1);
        }
      },
      kSmall, config);
}

// Nobody is told of a put without an immediate, so looking for what it brings is a race by nature,
// which the thread sanitizer need not report.
[[gnu::noinline, gnu::no_sanitize("thread")]] inline std::byte peek(const std::byte& memory) {
  return const_cast<const volatile std::byte&>(memory);
}

TEST_P(TransportConformance, PutsWithoutImmediateArriveUncounted) {
  run(2, [](TransportRank& rank) {
    const std::byte last{0x77};
    rank.outgoing()[99] = last;
    rank.transport().put(rank.put_of(other_of(rank), 0, 0, 100), soon());
    // Only the network knows when it arrives: look until it has.
    const Deadline deadline = soon();
    while (peek(rank.incoming()[99]) != last || rank.transport().oldest_incomplete_peer()) {
      require(!deadline.expired(), "the bytes did not arrive");
      rank.transport().progress();
    }
    require(rank.transport().arrivals().seen({Epoch(0), 0}, other_of(rank)) == 0, "it was counted");
    // Both have all they need, but the peer may need this rank's progress to see it.
    rank.transport().put(rank.counted_put(other_of(rank), 0, 0, {Epoch(0), 1}), soon());
    rank.await(other_of(rank), {Epoch(0), 1}, 1);
  });
}

TEST_P(TransportConformance, SilentPeerIsNamedWithExpectedAndSeenCount) {
  run(2, [](TransportRank& rank) {
    const ArrivalKey key{Epoch(7), 3};
    if (rank.rank() == Rank(1)) {
      rank.transport().put(rank.counted_put(Rank(0), 0, 8, key), soon());
      rank.transport().flush(soon());
    } else {
      rank.await(Rank(1), key, 1);
      const auto outcome = outcome_of([&] {
        rank.transport().await_arrival({key, Rank(1), 2, "exchange"},
                                       Deadline::after(std::chrono::milliseconds(100)));
      });
      require_failure(outcome, ErrorCode::kTimeout,
                      {"rank 0", "exchange", "rank 1", "counter 3", "epoch 7", "expected 2",
                       "seen 1", "100 ms"});
    }
  });
}

TEST_P(TransportConformance, FullQueueRefusesAndGoesOnLater) {
  TransportConfig config;
  config.max_outstanding = 8;
  run(
      2,
      [](TransportRank& rank) {
        const ArrivalKey key{Epoch(4), 2};
        std::uint64_t num_sent = 0;
        if (rank.rank() == Rank(0)) {
          const Put put = rank.counted_put(Rank(1), 0, 64, key);
          const Deadline deadline = soon();
          // Neither side makes progress, so there must be an end.
          while (rank.transport().try_put(put) == PutResult::kAccepted) {
            require(++num_sent <= 64, "accepted {} puts, queues have 8 places", num_sent);
            require(!deadline.expired(), "never refused");
          }
        }
        const std::string text = std::to_string(num_sent);
        const std::string sent = rank.bootstrap().all_gather(text, "puts so far", soon())[0];
        if (rank.rank() == Rank(0)) {
          for (int i = 0; i < 100; ++i) {
            rank.transport().put(rank.counted_put(Rank(1), 0, 64, key), soon());
          }
          rank.transport().flush(soon());
        } else {
          rank.await(Rank(0), key, std::stoull(sent) + 100);
        }
      },
      kSmall, config);
}

TEST_P(TransportConformance, PutWithoutRoomGivesUpAtItsDeadline) {
  TransportConfig config;
  config.max_outstanding = 4;
  const std::vector<std::string> errors = GetParam().run(2, [&](Bootstrap& bootstrap) {
    TransportRank rank(bootstrap, GetParam(), std::size_t{8} << 20, config);
    if (rank.rank() == Rank(0)) {
      const auto outcome = outcome_of([&] {
        const Deadline deadline = Deadline::after(std::chrono::milliseconds(200));
        for (int i = 0; i < 100; ++i) {
          rank.transport().put(rank.counted_put(Rank(1), 0, std::size_t{8} << 20, {Epoch(1), 0}),
                               deadline, "send");
        }
        rank.transport().flush(deadline, "send");
      });
      // A transport that moves everything without the receiver is welcome.
      if (outcome.code) {
        require_failure(outcome, ErrorCode::kTimeout, {"rank 0", "send", "rank 1", "200 ms"});
      }
    }
    bootstrap.barrier("after giving up", soon());
  });
  EXPECT_EQ(errors, std::vector<std::string>(2));
}

TEST_P(TransportConformance, TooManyRegionsAreRefusedUntilOneIsGivenBack) {
  TransportConfig config;
  config.max_regions = 3;
  run(
      2,
      [](TransportRank& rank) {
        std::array<std::vector<std::byte>, 3> memory;
        for (auto& bytes : memory) bytes.resize(100);
        rank.transport().register_region(memory[0]);
        const LocalRegion second = rank.transport().register_region(memory[1]);
        const auto outcome = outcome_of([&] { rank.transport().register_region(memory[2]); });
        require_failure(outcome, ErrorCode::kSystem, {"register_region", "max_regions = 3"});
        require_words(outcome.text, {fmt::format("rank {}", rank.rank().value())});
        rank.transport().deregister_region(second);
        rank.transport().register_region(memory[2]);
        const auto empty = outcome_of([&] { rank.transport().register_region({}); });
        require_failure(empty, ErrorCode::kInvalidArgument, {"register_region", "0 bytes"});
      },
      kSmall, config);
}

TEST_P(TransportConformance, PutsOutsideTheirRegionsAreRefusedWithAllValues) {
  run(2, [](TransportRank& rank) {
    Put put = rank.put_of(other_of(rank), 2 * kSmall - 10, 0, 11);
    put.target_offset = 2 * kSmall;
    put.arrival = ArrivalKey{Epoch(0), 64};
    const auto outcome = outcome_of([&] { rank.transport().try_put(put); });
    require_failure(outcome, ErrorCode::kInvalidArgument,
                    {"put", "source bytes 8182 to 8193", "target bytes 8192 to 8203",
                     "counter is 64", "num_counters = 64"});
    put = rank.put_of(other_of(rank), 0, 0, 1);
    put.source = LocalRegion(77);
    const auto unknown = outcome_of([&] { rank.transport().try_put(put); });
    require_failure(unknown, ErrorCode::kInvalidArgument, {"region 77"});
  });
}

TEST_P(TransportConformance, ClosedTransportRefusesCalls) {
  const auto errors = GetParam().run(2, [&](Bootstrap& bootstrap) {
    TransportRank rank(bootstrap, GetParam(), kSmall);
    rank.transport().put(rank.counted_put(rank.rank(), 0, 8, {Epoch(1), 0}), soon());
    rank.await(rank.rank(), {Epoch(1), 0}, 1);
    rank.meet("before closing");
    rank.transport().close();
    rank.transport().close();  // again
    std::vector<std::byte> memory(100);
    const std::vector<std::function<void()>> calls = {
        [&] { rank.transport().try_put(rank.put_of(rank.rank(), 0, 0, 8)); },
        [&] { rank.transport().progress(); }, [&] { rank.transport().register_region(memory); },
        [&] { rank.await(rank.rank(), {Epoch(1), 0}, 2); }};
    for (const auto& call : calls) {
      require_failure(outcome_of(call), ErrorCode::kInvalidArgument,
                      {"closed", fmt::format("rank {}", rank.rank().value())});
    }
  });
  EXPECT_EQ(errors, std::vector<std::string>(2));
}

TEST_P(TransportConformance, PeerThatAWatcherCallsDeadEndsWaitsAtOnce) {
  const auto errors = GetParam().run(2, [&](Bootstrap& bootstrap) {
    bool alive = true;
    TransportConfig config;
    config.provider = GetParam().provider;
    TransportGroup group = group_of(bootstrap);
    group.peer_alive = [&alive](Rank peer) { return alive || peer != Rank(1); };
    const std::unique_ptr<Transport> transport = GetParam().open(group, config, soon());
    const ArrivalKey key{Epoch(1), 0};
    alive = bootstrap.rank() == Rank(1);
    if (!alive) {
      const auto outcome =
          outcome_of([&] { transport->await_arrival({key, Rank(1), 1, "dispatch"}, soon()); });
      require_failure(outcome, ErrorCode::kPeerLost, {"rank 0", "dispatch", "rank 1 has gone"});
    }
    bootstrap.barrier("end of test", soon());
  });
  EXPECT_EQ(errors, std::vector<std::string>(2));
}

TEST_P(TransportConformance, DyingPeerIsNamedByEverySurvivorWhileOthersGoOn) {
  const std::vector<std::string> errors = GetParam().run(3, [&](Bootstrap& bootstrap) {
    const Rank dying(2);
    TransportRank rank(bootstrap, GetParam(), kSmall);
    const ArrivalKey key{Epoch(1), 0};
    for_each_rank(3, [&](Rank peer) {  // all are connected
      rank.transport().put(rank.counted_put(peer, 0, 16, key), soon());
    });
    for_each_rank(3, [&](Rank peer) { rank.await(peer, key, 1); });
    rank.meet("before one dies");
    if (rank.rank() == dying) return GetParam().die(rank.transport());

    const Deadline deadline = Deadline::after(std::chrono::seconds(2));
    const auto waiting =
        outcome_of([&] { rank.transport().await_arrival({key, dying, 2, "dispatch"}, deadline); });
    require(waiting.code.has_value(), "waited for a dead rank without an error");
    require_words(waiting.text, {"rank 2", "dispatch"});

    const Deadline second = Deadline::after(std::chrono::seconds(2));
    const auto sending = outcome_of([&] {
      for (int i = 0; i < 2000; ++i) {
        rank.transport().put(rank.counted_put(dying, 0, kSmall, key), second, "combine");
        rank.transport().flush(second, "combine");
      }
    });
    const bool unnoticed = !sending.code.has_value();  // memory of the dead may still take puts
    if (!unnoticed) require_words(sending.text, {"rank 2"});

    const Rank other = other_of(rank);
    rank.transport().put(rank.counted_put(other, 0, 16, key), soon());
    rank.await(other, key, 2);
    // The other one waits as well, and a flush would wait for the dead.
    for (int i = 0; i < 1000; ++i) rank.transport().progress();
  });
  EXPECT_EQ(errors[0], "");
  EXPECT_EQ(errors[1], "");
}

// Under the thread sanitizer a reconnect of several endpoints takes a second.
#if defined(__SANITIZE_THREAD__)
inline constexpr int kNumReconnects = 8;
#else
inline constexpr int kNumReconnects = 50;
#endif

TEST_P(TransportConformance, ManyReconnectsLeakNoDescriptors) {
  const auto errors = GetParam().run(2, [&](Bootstrap& bootstrap) {
    const auto connect_once = [&] {
      TransportRank rank(bootstrap, GetParam(), kSmall);
      const ArrivalKey key{Epoch(1), 0};
      rank.transport().put(rank.counted_put(other_of(rank), 0, 100, key), soon());
      rank.await(other_of(rank), key, 1);
      rank.meet("before dropping");
      rank.drop_transport();
      bootstrap.barrier("after dropping", soon());
    };
    const auto count = [&] {  // ranks may share a process
      bootstrap.barrier("before counting", soon());
      const std::size_t result = count_open_descriptors();
      bootstrap.barrier("after counting", soon());
      return result;
    };
    for (int i = 0; i < 3; ++i) connect_once();
    const std::size_t before = count();
    for (int i = 0; i < kNumReconnects; ++i) connect_once();
    const std::size_t after = count();
    require(after <= before, "descriptors: {} before, {} after", before, after);
  });
  EXPECT_EQ(errors, std::vector<std::string>(2));
}

}  // namespace moelink::test
