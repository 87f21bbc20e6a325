// Ranks with GPUs that die, leave or fall silent, and what the survivors see and can still do.
#include "gpu/cuda_process_ranks.hpp"

namespace moelink::test {
namespace {

constexpr Rank kVictim(2);
constexpr BufferConfig kShortWaits{.timeout = std::chrono::seconds(3)};
constexpr const char* kGivenUp = "the others have given up";

// Beyond the deadline and below the ten seconds more after which the host gives up on a kernel.
void require_in_time(std::chrono::steady_clock::time_point start) {
  const auto passed = std::chrono::steady_clock::now() - start;
  require(passed < kShortWaits.timeout + std::chrono::seconds(10), "it took {} ms",
          std::chrono::duration_cast<std::chrono::milliseconds>(passed).count());
}

std::string place(const char* operation, const BufferRank& rank, const char* stage) {
  return fmt::format("{} (rank {}), stage {}: ", operation, rank.rank(), stage);
}

// How the victim's absence from operation `number` shows at the deadline.
std::string absence(const char* operation, const BufferRank& rank, int number) {
  return place(operation, rank, "exchange") +
         fmt::format(
             "rank 2 did not arrive within 3000 ms (expected operation {} step 1, seen operation "
             "{} step {})",
             number, number - 1, number > 1 ? 1 : 0);
}

using CudaFaultsOfProcesses = CudaProcessTest;

// The victim calls once the others have given up, and learns of that.
void call_late(BufferRank& rank, Bootstrap& bootstrap) {
  bootstrap.barrier(kGivenUp, soon());
  const DispatchArguments made = rank.arguments(small_case(), make_problem(small_case()));
  const Outcome outcome = outcome_of([&] {
    rank.buffer.dispatch(made.config);
    rank.buffer.barrier();
  });
  require_failure(outcome, ErrorCode::kPeerLost, {place("dispatch", rank, "receive"), " gave up"});
}

TEST_F(CudaFaultsOfProcesses, ASilentRankIsNamedByDispatchAtTheDeadlineAndLearnsOfIt) {
  run([](Bootstrap& bootstrap) {
    BufferRank rank = open_rank(bootstrap, kShortWaits);
    if (bootstrap.rank() == kVictim) {
      call_late(rank, bootstrap);
    } else {
      const auto start = std::chrono::steady_clock::now();
      require_failure(outcome_of([&] { rank.dispatch(small_case()); }), ErrorCode::kTimeout,
                      {absence("dispatch", rank, 1)});
      require_in_time(start);
      require_failure(outcome_of([&] { rank.buffer.barrier(); }), ErrorCode::kPeerLost,
                      {"barrier (rank ", "broken by an earlier failure", "rank 2"});
      bootstrap.barrier(kGivenUp, soon());
      require_gpu_works();
    }
    bootstrap.barrier("end of test", soon());
  });
}

TEST_F(CudaFaultsOfProcesses,
       ASilentRankIsNamedByEventHandleAndNextCallOfADispatchThatDoesNotWait) {
  run([](Bootstrap& bootstrap) {
    BufferRank rank = open_rank(bootstrap, kShortWaits);
    if (bootstrap.rank() != kVictim) {
      DispatchArguments made = rank.arguments(small_case(), make_problem(small_case()));
      made.config.num_worst_tokens = 100;
      made.config.stream.completion = Completion::kAsync;
      const auto start = std::chrono::steady_clock::now();
      const DispatchResult received = rank.buffer.dispatch(made.config);
      const std::string text = absence("dispatch", rank, 1);
      require_failure(outcome_of([&] { received.event.wait(); }), ErrorCode::kTimeout, {text});
      require_in_time(start);
      for (int i = 0; i < 2; ++i) {
        require_failure(outcome_of([&] { received.handle->num_recv_tokens(); }),
                        ErrorCode::kTimeout, {text});
      }
      require_failure(outcome_of([&] { rank.buffer.barrier(); }), ErrorCode::kTimeout, {text});
      require_gpu_works();
    }
    bootstrap.barrier(kGivenUp, soon());
  });
}

TEST_F(CudaFaultsOfProcesses, ASilentRankIsNamedByEventAndNextCallOfCombine) {
  run([](Bootstrap& bootstrap) {
    BufferRank rank = open_rank(bootstrap, kShortWaits);
    const DispatchResult received = rank.dispatch(small_case());
    if (bootstrap.rank() != kVictim) {
      CombineArguments made = rank.arguments(make_problem(small_case()), received, {});
      made.config.stream.completion = Completion::kAsync;
      const auto start = std::chrono::steady_clock::now();
      const CombineResult combined = rank.buffer.combine(made.config);
      const std::string text = absence("combine", rank, 2);
      require_failure(outcome_of([&] { combined.event.wait(); }), ErrorCode::kTimeout, {text});
      require_in_time(start);
      require_failure(outcome_of([&] { rank.buffer.barrier(); }), ErrorCode::kTimeout, {text});
      require_gpu_works();
    }
    bootstrap.barrier(kGivenUp, soon());
  });
}

// An operation that succeeded stays a success, whatever comes after it.
TEST_F(CudaFaultsOfProcesses, AFaultLeavesEventAndHandleOfEarlierOperationsAlone) {
  run([](Bootstrap& bootstrap) {
    BufferRank rank = open_rank(bootstrap, kShortWaits);
    DispatchArguments made = rank.arguments(small_case(), make_problem(small_case()));
    made.config.num_worst_tokens = 100;
    made.config.stream.completion = Completion::kAsync;
    const DispatchResult received = rank.buffer.dispatch(made.config);
    if (bootstrap.rank() != kVictim) {
      require_failure(outcome_of([&] { rank.buffer.barrier(); }), ErrorCode::kTimeout,
                      {absence("barrier", rank, 2)});
    }
    rank.check(small_case(), make_problem(small_case()), received);
    bootstrap.barrier(kGivenUp, soon());
  });
}

TEST_F(CudaFaultsOfProcesses, AKilledRankIsNamedByTheNextDispatch) {
  run(
      [](Bootstrap& bootstrap) {
        BufferRank rank = open_rank(bootstrap);
        rank.round_trip(small_case());
        if (bootstrap.rank() == kVictim) die_with_idle_gpu();
        require_failure(outcome_of([&] { rank.dispatch(small_case()); }), ErrorCode::kPeerLost,
                        {place("dispatch", rank, "exchange") + "rank 2 has died"});
        rank.buffer.close();
        require_gpu_works();
      },
      kVictim);
}

// The barrier does not wait for the combine's deadline: the host sees that the victim is dead.
TEST_F(CudaFaultsOfProcesses, AKilledRankBetweenDispatchAndCombineIsNamedByTheCallAfterThat) {
  run(
      [](Bootstrap& bootstrap) {
        BufferRank rank = open_rank(bootstrap);
        const DispatchResult received = rank.dispatch(small_case());
        if (bootstrap.rank() == kVictim) die_with_idle_gpu();
        const CombineArguments made = rank.arguments(make_problem(small_case()), received, {});
        const Outcome outcome = outcome_of([&] {
          rank.buffer.combine(made.config);
          rank.buffer.barrier();
        });
        require_failure(outcome, ErrorCode::kPeerLost,
                        {place("combine", rank, "exchange") + "rank 2 has died"});
        rank.buffer.close();
        require_gpu_works();
      },
      kVictim);
}

// What a dead rank has sent stays valid: the survivors map its memory.
TEST_F(CudaFaultsOfProcesses, ReceivedRowsOutliveTheRankThatSentThem) {
  run(
      [](Bootstrap& bootstrap) {
        BufferRank rank = open_rank(bootstrap);
        const DispatchArguments made = rank.arguments(small_case(), make_problem(small_case()));
        const DispatchResult received = rank.buffer.dispatch(made.config);
        if (bootstrap.rank() == kVictim) die_with_idle_gpu();
        rank.check(small_case(), make_problem(small_case()), received);
      },
      kVictim);
}

TEST_F(CudaFaultsOfProcesses, ABufferDestroyedWithoutCloseTellsThePeersWhy) {
  run([](Bootstrap& bootstrap) {
    {
      BufferRank rank = open_rank(bootstrap);
      rank.round_trip(small_case());
      if (bootstrap.rank() != kVictim) {
        require_failure(outcome_of([&] { rank.dispatch(small_case()); }), ErrorCode::kPeerLost,
                        {place("dispatch", rank, "exchange") +
                         "rank 2 gave up: its buffer was destroyed without close()"});
        require_gpu_works();
      }
    }
    bootstrap.barrier("end of test", soon());
  });
}

// Handles and events that outlive their buffer.
TEST_F(CudaFaultsOfProcesses, AHandleCanBeAskedForTheFirstTimeAfterItsBufferHasGone) {
  run([](Bootstrap& bootstrap) {
    DispatchResult received;
    {
      BufferRank rank = open_rank(bootstrap);
      DispatchArguments made = rank.arguments(small_case(), make_problem(small_case()));
      made.config.num_worst_tokens = 100;
      made.config.stream.completion = Completion::kAsync;
      received = rank.buffer.dispatch(made.config);
      rank.buffer.close();
    }
    received.event.wait();
    const ReceivedRows expected =
        received_rows(make_problem(small_case()), bootstrap.rank().value());
    const auto num_tokens = static_cast<std::int64_t>(expected.tokens.size());
    require(received.handle->num_recv_tokens() == num_tokens, "N is {}, expected {}",
            received.handle->num_recv_tokens(), num_tokens);
  });
}

}  // namespace
}  // namespace moelink::test
