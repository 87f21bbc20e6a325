// Processes with GPUs that die, or that cannot share memory in the way that is wished.
#include <gtest/gtest.h>

#include "conformance/bootstrap_hook.hpp"
#include "conformance/texts.hpp"
#include "gpu/cuda_ranks.hpp"

namespace moelink::test {
namespace {

constexpr std::size_t kBytes = std::size_t{4} << 20;

// The parameter is what the ranks wish. The test process itself never uses CUDA.
class CudaMemoryProcesses : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { ASSERT_FALSE(process_has_used_cuda()) << "run each test by itself"; }

  static std::shared_ptr<SymmetricMemory> open(Bootstrap& bootstrap) {
    return open_on_own_device(GetParam(), bootstrap, kBytes, soon());
  }
};

INSTANTIATE_TEST_SUITE_P(Kinds, CudaMemoryProcesses, ::testing::Values("vmm", "ipc", "pinned"),
                         [](const auto& parameter) { return std::string(parameter.param); });

void write_mark(SymmetricMemory& memory, Rank owner) {
  const std::uint64_t mark = mark_of(memory.rank(), owner);
  copy_by_cuda(&word_of(memory, owner, memory.rank().index()), &mark, sizeof(mark));
}

void require_marks(SymmetricMemory& memory, Rank owner) {
  std::vector<std::uint64_t> words(static_cast<std::size_t>(memory.num_ranks()));
  copy_by_cuda(words.data(), memory.region(owner), words.size() * sizeof(words[0]));
  for (Rank writer(0); writer.index() < words.size(); writer = writer.next()) {
    require(words[writer.index()] == mark_of(writer, owner), "rank {} does not see rank {}'s word",
            memory.rank().value(), writer.value());
  }
}

TEST_P(CudaMemoryProcesses, NoticeAKilledOneAndKeepItsMemory) {
  const auto outcomes = run_forked_ranks(3, [](Bootstrap& bootstrap) {
    const auto memory = open(bootstrap);
    const Rank victim(1);
    write_mark(*memory, victim);
    bootstrap.barrier("before the kill", soon());
    if (memory->rank() == victim) die_by_sigkill();
    wait_until_dead(*memory, victim);
    require_marks(*memory, victim);
    require(memory->peer_alive(memory->rank()), "a survivor takes itself for dead");
  });
  EXPECT_EQ(outcomes[1].signal, SIGKILL);
  EXPECT_EQ(outcomes[0].error, "");
  EXPECT_EQ(outcomes[2].error, "");
}

TEST_P(CudaMemoryProcesses, FailNamingOneThatIsKilledWhileTheyOpen) {
  for (const char* const stage : {"finding the GPUs of ranks", "making symmetric memory"}) {
    const auto outcomes = run_forked_ranks(3, [&](Bootstrap& bootstrap) {
      BootstrapHook hook(bootstrap, [&](const std::string& what, const auto&) {
        if (bootstrap.rank() == Rank(1) && what == stage) die_by_sigkill();
      });
      open_on_own_device(GetParam(), hook, kBytes, Deadline::after(std::chrono::seconds(15)));
    });
    EXPECT_EQ(outcomes[1].signal, SIGKILL) << stage;
    for (const std::size_t survivor : {std::size_t{0}, std::size_t{2}}) {
      EXPECT_TRUE(mentions(outcomes[survivor].error, {"rank 1"}) ||
                  mentions(outcomes[survivor].error, {"ranks 1"}))
          << stage << ": " << outcomes[survivor].error;
    }
  }
}

TEST_P(CudaMemoryProcesses, FailAtAllRanksWhenOneAsksForMoreThanThereIs) {
  const auto errors = run_cuda_processes(2, [](Bootstrap& bootstrap) {
    open_on_own_device(GetParam(), bootstrap, std::size_t{1} << 42, soon());
  });
  EXPECT_TRUE(all_mention(errors, {"system error", "bytes", "MOELINK_MAX_SYMMETRIC_BYTES"}));
}

TEST(CudaMemoryWishes, OfRanksThatDifferAreRefusedAtAllOfThem) {
  ASSERT_FALSE(process_has_used_cuda()) << "run each test by itself";
  const auto errors = run_cuda_processes(2, [](Bootstrap& bootstrap) {
    const char* const wish = bootstrap.rank() == Rank(0) ? "vmm" : "ipc";
    open_on_own_device(wish, bootstrap, kBytes, soon());
  });
  EXPECT_TRUE(all_mention(errors, {"invalid argument", "MOELINK_CUDA_MEMORY"}));
}

}  // namespace
}  // namespace moelink::test
