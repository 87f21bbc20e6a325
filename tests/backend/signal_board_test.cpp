// Signals between ranks: delivery, and what a wait says when nobody answers.
#include "backend/cpu/signal_board.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "backend/fake_regions.hpp"
#include "moelink/errors.hpp"

namespace moelink {
namespace {

using std::chrono::milliseconds;
using test::FakeRanks;

constexpr SignalChannel kChannel = SignalChannel::kDelivered;
constexpr auto kOwnCores = SignalBoard::Cores::kOwn;        // spins before it sleeps
constexpr auto kSharedCores = SignalBoard::Cores::kShared;  // yields, then sleeps

WaitContext within(milliseconds span) {
  return WaitContext{Operation::kDispatch, Stage::kReceive, Deadline::after(span)};
}
WaitContext patiently() { return within(std::chrono::seconds(50)); }
WaitContext briefly() { return within(milliseconds(20)); }

// The error with which a wait of `board` for step 1 of operation 5 ends.
Error error_of_wait(SignalBoard& board, Rank peer, const WaitContext& context) {
  try {
    board.wait(peer, kChannel, SignalValue::of(Epoch(5), 1), context);
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorCode::kInternal, "nothing was thrown");
}

TEST(SignalBoard, DeliversAValueToThePeerAndChannelAddressedOnly) {
  FakeRanks ranks(3);
  SignalBoard sender(ranks.areas[0], kOwnCores);
  SignalBoard receiver(ranks.areas[1], kOwnCores);
  SignalBoard bystander(ranks.areas[2], kOwnCores);
  sender.put(Rank(1), kChannel, SignalValue::of(Epoch(5), 1));
  receiver.wait(Rank(0), kChannel, SignalValue::of(Epoch(5), 1), patiently());
  EXPECT_EQ(error_of_wait(bystander, Rank(0), briefly()).code(), ErrorCode::kTimeout);
  EXPECT_THROW(
      receiver.wait(Rank(0), SignalChannel::kStaged, SignalValue::of(Epoch(5), 1), briefly()),
      Error);
}

TEST(SignalBoard, WaitsForAllPeersButItself) {
  FakeRanks ranks(3);
  SignalBoard receiver(ranks.areas[1], kOwnCores);
  const SignalValue value = SignalValue::of(Epoch(1), kDone);
  SignalBoard(ranks.areas[0], kOwnCores).put_all(kChannel, value);
  EXPECT_THROW(receiver.wait_all(kChannel, value, briefly()), Error);
  SignalBoard(ranks.areas[2], kOwnCores).put_all(kChannel, value);
  receiver.wait_all(kChannel, value, patiently());
}

TEST(SignalBoard, LaterValuesEndAWaitForEarlierOnes) {
  FakeRanks ranks(2);
  SignalBoard sender(ranks.areas[0], kOwnCores);
  SignalBoard receiver(ranks.areas[1], kOwnCores);
  sender.put(Rank(1), kChannel, SignalValue::of(Epoch(6), 0));
  receiver.wait(Rank(0), kChannel, SignalValue::of(Epoch(5), 9), patiently());
}

TEST(SignalBoard, PublishesWhatWasWrittenBeforeThePut) {
  FakeRanks ranks(2);
  constexpr std::uint64_t kRounds = 2000;
  std::uint64_t payload = 0;  // plain: the signals alone order the accesses
  std::thread peer([&] {
    SignalBoard board(ranks.areas[1], kSharedCores);
    for (std::uint64_t i = 1; i <= kRounds; ++i) {
      board.wait(Rank(0), kChannel, SignalValue::of(Epoch(i), 1), patiently());
      payload = payload * 3 + i;
      board.put(Rank(0), kChannel, SignalValue::of(Epoch(i), 1));
    }
  });
  SignalBoard board(ranks.areas[0], kSharedCores);
  for (std::uint64_t i = 1; i <= kRounds; ++i) {
    const std::uint64_t before = payload;
    board.put(Rank(1), kChannel, SignalValue::of(Epoch(i), 1));
    board.wait(Rank(1), kChannel, SignalValue::of(Epoch(i), 1), patiently());
    ASSERT_EQ(payload, before * 3 + i);
  }
  peer.join();
}

TEST(SignalBoard, WakesAPeerThatSleeps) {
  FakeRanks ranks(2);
  std::thread sleeper([&] {
    SignalBoard board(ranks.areas[1], kSharedCores);
    board.wait(Rank(0), kChannel, SignalValue::of(Epoch(1), 1), patiently());
  });
  Doorbell& bell = ranks.areas[0]->doorbell(Rank(1));
  while (std::atomic_ref(bell.awaited).load() == 0) std::this_thread::yield();
  SignalBoard board(ranks.areas[0], kSharedCores);
  board.put(Rank(1), kChannel, SignalValue::of(Epoch(1), 1));
  sleeper.join();
  EXPECT_EQ(std::atomic_ref(bell.awaited).load(), 0U);
}

TEST(SignalBoard, TimeoutNamesRankPeerStageTimeAndBothValues) {
  FakeRanks ranks(3);
  SignalBoard sender(ranks.areas[2], kOwnCores);
  sender.put(Rank(1), kChannel, SignalValue::of(Epoch(4), 3));
  SignalBoard receiver(ranks.areas[1], kOwnCores);
  const Error error = error_of_wait(receiver, Rank(2), briefly());
  EXPECT_EQ(error.code(), ErrorCode::kTimeout);
  EXPECT_STREQ(error.what(),
               "timeout: dispatch (rank 1), stage receive: rank 2 did not arrive within 20 ms "
               "(expected operation 5 step 1, seen operation 4 step 3)");
}

TEST(SignalBoard, DeadPeerIsNamedLongBeforeTheDeadline) {
  FakeRanks ranks(3);
  ranks.regions->kill(Rank(2));
  SignalBoard receiver(ranks.areas[1], kOwnCores);
  const Error error = error_of_wait(receiver, Rank(2), patiently());
  EXPECT_EQ(error.code(), ErrorCode::kPeerLost);
  EXPECT_STREQ(error.what(), "peer lost: dispatch (rank 1), stage receive: rank 2 has died");
}

TEST(SignalBoard, PeerThatDiesDuringAWaitEndsIt) {
  FakeRanks ranks(2);
  std::thread killer([&] {
    Doorbell& bell = ranks.areas[0]->doorbell(Rank(0));
    while (std::atomic_ref(bell.awaited).load() == 0) std::this_thread::yield();
    ranks.regions->kill(Rank(1));
  });
  SignalBoard receiver(ranks.areas[0], kSharedCores);
  EXPECT_EQ(error_of_wait(receiver, Rank(1), patiently()).code(), ErrorCode::kPeerLost);
  killer.join();
}

// Rank 0 waits for both peers: rank 2 has sent everything and then left in the way of `leave`, rank
// 1 sends only once rank 0 has looked after its peers in vain.
void wait_for_a_late_and_a_gone_peer(const std::function<void(FakeRanks&)>& leave) {
  FakeRanks ranks(3);
  const SignalValue value = SignalValue::of(Epoch(1), kDone);
  for (const int sender : {1, 2}) {
    SignalBoard board(ranks.areas[static_cast<std::size_t>(sender)], kOwnCores);
    board.put_all(SignalChannel::kExchanged, value);
  }
  SignalBoard(ranks.areas[2], kOwnCores).put_all(kChannel, value);
  leave(ranks);
  std::atomic<bool> has_ended{false};
  std::thread late([&] {
    while (ranks.regions->num_looks() < 4 && !has_ended) std::this_thread::yield();
    SignalBoard(ranks.areas[1], kOwnCores).put_all(kChannel, value);
  });
  SignalBoard waiting(ranks.areas[0], kSharedCores);
  const auto wait = [&] { waiting.wait_all(kChannel, value, patiently()); };
  EXPECT_NO_THROW(wait());
  has_ended = true;
  late.join();
}

TEST(SignalBoard, PeerThatDiesAfterSendingEverythingDoesNotEndWaitsForOthers) {
  wait_for_a_late_and_a_gone_peer([](FakeRanks& ranks) { ranks.regions->kill(Rank(2)); });
}

TEST(SignalBoard, PeerThatGivesUpAfterSendingEverythingDoesNotEndWaitsForOthers) {
  wait_for_a_late_and_a_gone_peer([](FakeRanks& ranks) {
    SignalBoard(ranks.areas[2], kOwnCores)
        .raise("its buffer was destroyed without close()", Epoch(2));
  });
}

TEST(SignalBoard, PeerThatIsGoneBeforeTheOperationEndsWaitsForOthersAtOnce) {
  FakeRanks ranks(3);
  ranks.regions->kill(Rank(2));
  SignalBoard receiver(ranks.areas[0], kOwnCores);
  const Error error = error_of_wait(receiver, Rank(1), patiently());
  EXPECT_STREQ(error.what(), "peer lost: dispatch (rank 0), stage receive: rank 2 has died");
}

TEST(SignalBoard, FaultOfAPeerEndsTheWaitWithItsReason) {
  FakeRanks ranks(2);
  SignalBoard(ranks.areas[1], kOwnCores).raise("it ran out of luck", Epoch(5));
  SignalBoard receiver(ranks.areas[0], kOwnCores);
  const Error error = error_of_wait(receiver, Rank(1), patiently());
  EXPECT_EQ(error.code(), ErrorCode::kPeerLost);
  EXPECT_STREQ(error.what(),
               "peer lost: dispatch (rank 0), stage receive: rank 1 gave up: it ran out of luck");
}

TEST(SignalBoard, FaultsOfLaterOperationsDoNotCount) {
  FakeRanks ranks(2);
  SignalBoard(ranks.areas[1], kOwnCores).raise("it ran out of luck", Epoch(6));
  SignalBoard board(ranks.areas[0], kOwnCores);
  EXPECT_EQ(error_of_wait(board, Rank(1), briefly()).code(), ErrorCode::kTimeout);
  EXPECT_NO_THROW(board.check_faults(Epoch(5), briefly()));
  EXPECT_THROW(board.check_faults(Epoch(6), briefly()), Error);
}

// The error of a low latency wait of rank 0, which has begun operation 7, for rank 1, which has
// begun `begun` instead of signalling.
Error error_of_peer_elsewhere(Epoch begun) {
  FakeRanks ranks(2);
  SignalBoard peer(ranks.areas[1], kOwnCores);
  peer.put_all(SignalChannel::kExchanged, SignalValue::of(begun, kDone));
  SignalBoard board(ranks.areas[0], kSharedCores);
  WaitContext context = begun == Epoch(7) ? briefly() : patiently();
  context.exchanged = Epoch(7);
  try {
    board.wait(Rank(1), SignalChannel::kLowLatencySent, SignalValue::of(Epoch(2), kDone), context);
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorCode::kInternal, "nothing was thrown");
}

TEST(SignalBoard, PeerThatBeganAnotherOperationEndsALowLatencyWait) {
  EXPECT_EQ(error_of_peer_elsewhere(Epoch(7)).code(), ErrorCode::kTimeout);
  EXPECT_STREQ(error_of_peer_elsewhere(Epoch(8)).what(),
               "invalid argument: dispatch (rank 0), stage receive: rank 1 has begun another "
               "operation");
  EXPECT_STREQ(error_of_peer_elsewhere(Epoch(12)).what(),
               "peer lost: dispatch (rank 0), stage receive: rank 1 has gone on without this rank "
               "(it is at operation 12, not 7)");
}

TEST(SignalBoard, PeerThatBeganAnotherOperationIsNotMaskedForIt) {
  FakeRanks ranks(2);
  SignalBoard peer(ranks.areas[1], kOwnCores);
  peer.put_all(SignalChannel::kExchanged, SignalValue::of(Epoch(1), kDone));
  SignalBoard board(ranks.areas[0], kSharedCores, Survival::kMask);
  WaitContext context = patiently();
  context.exchanged = Epoch(0);
  const auto wait = [&] {
    board.wait(Rank(1), SignalChannel::kLowLatencySent, SignalValue::of(Epoch(1), kDone), context);
  };
  EXPECT_THROW(wait(), Error);
  EXPECT_FALSE(board.masks().is_masked(Rank(1)));
}

TEST(ControlArea, FirstFaultStaysAndLongReasonsAreCut) {
  FakeRanks ranks(2);
  const Epoch now(1);
  EXPECT_EQ(ranks.areas[1]->fault_of(Rank(0), now), "");
  ranks.areas[0]->raise_fault(std::string(2000, 'a'), now);
  ranks.areas[0]->raise_fault("second", now);
  EXPECT_EQ(ranks.areas[1]->fault_of(Rank(0), now), std::string(FaultRecord::kMaxText, 'a'));
  EXPECT_EQ(ranks.areas[1]->fault_of(Rank(1), now), "");
}

}  // namespace
}  // namespace moelink
