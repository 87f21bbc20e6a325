// Chunks of a staged combine and the places of their rows.
#include "protocol/staging_plan.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace moelink {
namespace {

// A matrix of 2 ranks and 2 experts in which rank 1 receives `tokens`.
std::uint32_t chunks_for(std::int32_t tokens, std::size_t row_bytes) {
  const std::vector<std::int32_t> rows = {1, tokens, 0, 0, 0, 0, 0, 0};
  return num_staging_chunks(CountMatrix{rows.data(), 2, 2}, row_bytes);
}

TEST(StagingPlan, RowsUpToTheChunkSizeAreOneChunk) {
  EXPECT_EQ(chunks_for(0, 4096), 1U);
  EXPECT_EQ(chunks_for(512, 4096), 1U);  // 2 MiB
  EXPECT_EQ(chunks_for(513, 4096), 2U);
}

TEST(StagingPlan, TheRankWithMostRowsDecides) {
  EXPECT_EQ(chunks_for(512 * 5, 4096), 5U);
  EXPECT_EQ(chunks_for(512 * 5 + 1, 4096), 6U);
}

TEST(StagingPlan, ChunksFitIntoTheProgressOfASignal) {
  EXPECT_LT(chunks_for(2'000'000'000, std::size_t{1} << 20), SignalValue::kMaxProgress);
}

TEST(StagingPlan, ChunksCoverAllTokensInOrderAndNearlyEvenly) {
  for (const std::int64_t num_tokens : {0, 1, 2, 7, 8, 1000, 4097}) {
    for (const std::uint32_t num_chunks : {1U, 2U, 3U, 64U}) {
      EXPECT_EQ(chunk_begin(num_tokens, 0, num_chunks), 0);
      EXPECT_EQ(chunk_begin(num_tokens, num_chunks, num_chunks), num_tokens);
      for (std::uint32_t chunk = 0; chunk < num_chunks; ++chunk) {
        const std::int64_t size = chunk_begin(num_tokens, chunk + 1, num_chunks) -
                                  chunk_begin(num_tokens, chunk, num_chunks);
        EXPECT_GE(size, num_tokens / num_chunks);
        EXPECT_LE(size, num_tokens / num_chunks + 1);
      }
    }
  }
}

TEST(StagingTable, PartsOfRanksFollowTheTableAndOneAnother) {
  std::int32_t first_row[4] = {0, 3, 3, 10};
  const StagingTable table{first_row, 3};
  constexpr std::size_t kRowBytes = 48;
  EXPECT_GE(table.slots_offset(), sizeof(first_row));
  EXPECT_EQ(table.slots_offset() % kPartAlignment, 0U);
  EXPECT_EQ(table.slot_bytes(kRowBytes), 10 * kRowBytes);
  EXPECT_EQ(table.offset_of(Rank(0), kRowBytes), table.slots_offset());
  EXPECT_EQ(table.offset_of(Rank(1), kRowBytes), table.slots_offset() + 3 * kRowBytes);
  EXPECT_EQ(table.offset_of(Rank(2), kRowBytes), table.slots_offset() + 3 * kRowBytes);
}

}  // namespace
}  // namespace moelink
