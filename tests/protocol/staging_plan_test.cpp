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

constexpr std::size_t kRingRowBytes = 14336;

// Rows of the ring that a chunk of `owner` may use, and the end of the ring.
void expect_that_chunks_fit(int num_ranks, std::int64_t num_tokens, std::size_t ring_bytes) {
  const StagingRing ring = StagingRing::make(num_ranks, num_tokens, ring_bytes, kRingRowBytes);
  ASSERT_TRUE(ring.is_valid());
  const auto num_rows = static_cast<std::int64_t>(ring_bytes / kRingRowBytes);
  for (std::uint32_t chunk = 0; chunk < ring.num_chunks; ++chunk) {
    for (Rank owner(0); owner.value() < num_ranks; owner = owner.next()) {
      EXPECT_LE(ring.first_row(chunk, owner, num_ranks) + ring.tokens_per_slot, num_rows);
    }
    EXPECT_LE(chunk_begin(num_tokens, chunk + 1, ring.num_chunks) -
                  chunk_begin(num_tokens, chunk, ring.num_chunks),
              ring.tokens_per_slot);
  }
}

TEST(StagingRing, ChunksOfTokensFitTheSlotsOfRingsOfAnySize) {
  for (const int num_ranks : {1, 2, 7}) {
    for (const std::int64_t num_tokens : {0, 1, 63, 64, 65, 4096, 4097}) {
      const std::size_t most = StagingRing::bytes(num_ranks, num_tokens, kRingRowBytes);
      const std::size_t least = StagingRing::bytes(num_ranks, 0, kRingRowBytes);
      for (const std::size_t bytes : {most, least}) {
        expect_that_chunks_fit(num_ranks, num_tokens, bytes);
      }
    }
  }
}

TEST(StagingRing, FewTokensAreOneChunkAndManyStayWithinTheLimit) {
  EXPECT_EQ(StagingRing::make(2, 128, StagingRing::bytes(2, 128, kRingRowBytes), kRingRowBytes)
                .num_chunks,
            1U);
  EXPECT_EQ(StagingRing::bytes(2, 4096, kRingRowBytes), StagingRing::kMaxBytes);
  EXPECT_EQ(StagingRing::make(2, 4096, StagingRing::kMaxBytes, kRingRowBytes).num_chunks, 15U);
}

TEST(StagingRing, SlotsOfOwnersDoNotOverlapUntilTheyAreUsedAgain) {
  const StagingRing ring{9, 10};
  EXPECT_EQ(ring.first_row(0, Rank(0), 3), 0);
  EXPECT_EQ(ring.first_row(0, Rank(2), 3), 20);
  EXPECT_EQ(ring.first_row(1, Rank(0), 3), 30);
  EXPECT_EQ(ring.first_row(3, Rank(2), 3), 110);
  EXPECT_EQ(ring.first_row(4, Rank(1), 3), ring.first_row(0, Rank(1), 3));
}

TEST(StagingRing, MoreChunksThanASignalCanTellAreNotValid) {
  const std::size_t least = StagingRing::bytes(2, 0, kRingRowBytes);
  EXPECT_TRUE(StagingRing::make(2, 1'000'000, least, kRingRowBytes).is_valid());
  EXPECT_FALSE(StagingRing::make(2, 2'000'000, least, kRingRowBytes).is_valid());
}

}  // namespace
}  // namespace moelink
