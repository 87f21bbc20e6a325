// Symmetric memory whose ranks are threads, of both kinds, and the choice between the kinds.
#include "symm/symmetric_memory.hpp"

#include <gtest/gtest.h>

#include "conformance/symmetric_memory_conformance.hpp"
#include "conformance/texts.hpp"
#include "conformance/thread_ranks.hpp"
#include "symm/memfd/memfd_memory.hpp"

namespace moelink::test {
namespace {

INSTANTIATE_TEST_SUITE_P(
    Threads, SymmetricMemoryConformance,
    ::testing::Values(MemoryKind{"Inproc", "inproc", run_thread_ranks, open_symmetric_memory},
                      MemoryKind{"Memfd", "memfd", run_thread_ranks, open_memfd_memory}),
    name_of_kind);

TEST(OpenSymmetricMemory, FailsAtAllRanksWhenSizesDiffer) {
  const auto errors = run_thread_ranks(3, [](Bootstrap& bootstrap) {
    const std::size_t bytes = bootstrap.rank() == Rank(2) ? 8192 : 4096;
    open_symmetric_memory(bootstrap, bytes, soon());
  });
  EXPECT_TRUE(all_mention(errors, {"invalid argument", "rank 0 asks for 4096", "rank 2 for 8192"}));
}

TEST(OpenSymmetricMemory, FailsAtAllRanksWhenNothingIsAskedFor) {
  const auto errors = run_thread_ranks(
      2, [](Bootstrap& bootstrap) { open_symmetric_memory(bootstrap, 0, soon()); });
  EXPECT_TRUE(all_mention(errors, {"asks for 0 bytes"}));
}

TEST(OpenSymmetricMemory, FailsAtAllRanksWhenMoreIsAskedForThanThereAreAddresses) {
  for (const auto open : {open_symmetric_memory, open_memfd_memory}) {
    const auto errors = run_thread_ranks(
        2, [open](Bootstrap& bootstrap) { open(bootstrap, ~std::size_t{0}, soon()); });
    EXPECT_TRUE(all_mention(
        errors, {"system error", "rank 0: cannot reserve", "MOELINK_MAX_SYMMETRIC_BYTES"}));
  }
}

TEST(OpenSymmetricMemory, WorksAgainAfterAFailure) {
  const auto errors = run_thread_ranks(3, [](Bootstrap& bootstrap) {
    EXPECT_THROW(open_memfd_memory(bootstrap, ~std::size_t{0}, soon()), Error);
    const auto memory = open_memfd_memory(bootstrap, 4096, soon());
    EXPECT_EQ(memory->size_bytes(), 4096U);
  });
  EXPECT_EQ(errors, std::vector<std::string>(3));
}

}  // namespace
}  // namespace moelink::test
