// Symmetric memory of ranks that are processes.
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "conformance/forked_bootstrap.hpp"
#include "conformance/symmetric_memory_conformance.hpp"

namespace moelink::test {
namespace {

INSTANTIATE_TEST_SUITE_P(Processes, SymmetricMemoryConformance,
                         ::testing::Values(MemoryKind{"Memfd", "memfd", run_process_ranks,
                                                      open_symmetric_memory}),
                         name_of_kind);

// Ours only: other programs may use the folder meanwhile.
std::set<std::string> files_in_shared_memory_folder() {
  std::set<std::string> names;
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm", missing)) {
    const std::string name = entry.path().filename().string();
    if (name.find("moelink") != std::string::npos) names.insert(name);
  }
  return names;
}

TEST(SymmetricMemoryProcesses, LeaveNothingBehindWhenAllAreKilled) {
  const std::set<std::string> before = files_in_shared_memory_folder();
  const auto outcomes = run_forked_ranks(3, [](Bootstrap& bootstrap) {
    const auto memory = open_symmetric_memory(bootstrap, 1U << 20, soon());
    word_of(*memory, Rank(0), bootstrap.rank().index()) = 1;
    bootstrap.barrier("before dying", soon());
    die_by_sigkill();
  });
  for (const RankOutcome& outcome : outcomes) EXPECT_EQ(outcome.signal, SIGKILL);
  EXPECT_EQ(files_in_shared_memory_folder(), before);
}

TEST(ForkedRanks, ReportExitCodesErrorsAndSignals) {
  const auto outcomes = run_forked_ranks(4, [](Bootstrap& bootstrap) {
    const auto ranks =
        bootstrap.all_gather(std::to_string(bootstrap.rank().value()), "ranks", soon());
    require(ranks == std::vector<std::string>{"0", "1", "2", "3"}, "all_gather is wrong");
    if (bootstrap.rank() == Rank(1)) throw std::runtime_error("on purpose");
    if (bootstrap.rank() == Rank(2)) die_by_sigkill();
    if (bootstrap.rank() == Rank(3)) ::_exit(7);
  });
  EXPECT_TRUE(outcomes[0].succeeded());
  EXPECT_EQ(outcomes[1].error, "on purpose");
  EXPECT_EQ(outcomes[2].signal, SIGKILL);
  EXPECT_EQ(outcomes[3].exit_code, 7);
}

TEST(ForkedRanks, NameTheRankThatHasGoneAndTheCollective) {
  const auto outcomes = run_forked_ranks(2, [](Bootstrap& bootstrap) {
    if (bootstrap.rank() == Rank(1)) die_by_sigkill();
    bootstrap.barrier("waiting in vain", soon());
  });
  EXPECT_EQ(outcomes[0].error, "peer lost: waiting in vain: rank 1 has gone");
}

TEST(ForkedRanks, AreKilledAtTheTimeLimit) {
  const auto outcomes =
      run_forked_ranks(1, [](Bootstrap&) { ::pause(); }, std::chrono::milliseconds(50));
  EXPECT_EQ(outcomes[0].signal, SIGKILL);
}

}  // namespace
}  // namespace moelink::test
