// Slots of the low latency area: no two overlap, halves alternate, everything lies inside.
#include "protocol/low_latency_layout.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "protocol/expert_map.hpp"

namespace moelink {
namespace {

constexpr LowLatencyArea kArea{3, 5, 4, 256};

TEST(LowLatencyArea, SlotsDoNotOverlapAndLieInside) {
  std::vector<std::pair<std::size_t, std::size_t>> spans;  // begin, end
  for (const Epoch epoch : {Epoch(6), Epoch(7)}) {
    for (Rank source(0); source.value() < kArea.num_ranks; source = source.next()) {
      const std::size_t message = kArea.message_offset(epoch, source);
      spans.emplace_back(message, message + sizeof(LowLatencyHeader));
      for (std::size_t i = 0; i < 5; ++i) {
        const std::size_t entry = kArea.entry_offset(epoch, source, i);
        spans.emplace_back(entry, entry + kArea.entry_stride());
      }
    }
    spans.emplace_back(kArea.outbox_epoch_offset(epoch), kArea.outbox_epoch_offset(epoch) + 8);
    for (TokenIdx token(0); token.value() < kArea.max_tokens; token = token.next()) {
      const std::size_t sent = kArea.outbox_offset(epoch, token);
      spans.emplace_back(sent, sent + kArea.row_stride());
      for (int k = 0; k < kArea.num_topk; ++k) {
        const std::size_t row = kArea.return_offset(epoch, token, k);
        spans.emplace_back(row, row + kArea.row_stride());
      }
    }
  }
  std::ranges::sort(spans);
  for (std::size_t i = 1; i < spans.size(); ++i) EXPECT_LE(spans[i - 1].second, spans[i].first);
  EXPECT_LE(spans.back().second, kArea.total_bytes());
}

TEST(LowLatencyArea, OperationsTwoApartShareAHalf) {
  EXPECT_EQ(kArea.outbox_offset(Epoch(4), TokenIdx(2)), kArea.outbox_offset(Epoch(6), TokenIdx(2)));
  EXPECT_NE(kArea.outbox_offset(Epoch(4), TokenIdx(2)), kArea.outbox_offset(Epoch(5), TokenIdx(2)));
}

TEST(LowLatencyArea, RowHoldsFp8ValuesAndTheirScales) {
  for (const std::size_t hidden : {std::size_t{128}, std::size_t{7168}, std::size_t{16384}}) {
    const LowLatencyArea area{2, 1, 1, hidden};
    EXPECT_GE(area.row_stride(), hidden + hidden / 128 * sizeof(float));
    EXPECT_GE(area.row_stride(), hidden * 2);
  }
}

TEST(LowLatencyPart, EntriesAndRowsFollowOneAnotherAndRowsAreAligned) {
  LowLatencyPart part{.header = {.num_tokens = 5}, .entry_bytes = 8, .row_bytes = 272};
  EXPECT_EQ(part.entry_offset(0), sizeof(LowLatencyPart));
  EXPECT_EQ(part.entry_offset(4), sizeof(LowLatencyPart) + 32);
  EXPECT_GE(part.row_offset(0), part.entry_offset(5));
  EXPECT_EQ(part.row_offset(0) % kRowGranuleBytes, 0U);
  EXPECT_EQ(part.row_offset(3), part.row_offset(0) + 3U * 272);
  EXPECT_EQ(part.total_bytes(), part.row_offset(5));
  part.header.num_tokens = 0;
  EXPECT_EQ(part.total_bytes(), sizeof(LowLatencyPart));
}

TEST(LowLatencyPart, CapacityFitsAndOneMoreTokenDoesNotUnlessByItsAlignment) {
  LowLatencyPart part{.header = {}, .entry_bytes = 24, .row_bytes = 272};
  for (std::size_t bytes = 0; bytes < 4000; ++bytes) {
    const std::size_t capacity = part.capacity(bytes);
    part.header.num_tokens = static_cast<std::uint32_t>(capacity);
    if (capacity > 0) {
      EXPECT_LE(part.total_bytes(), bytes);
    }
    EXPECT_GT(part.total_bytes() + 24 + 272 + kRowGranuleBytes, bytes);
  }
}

TEST(IsFirstForRank, HoldsForOneSelectionOfEachRank) {
  const ExpertMap map = ExpertMap::make(8, 4);  // two experts per rank
  const std::vector<int> ids = {5, -1, 4, 0, 1, 7};
  const auto id_at = [&](int k) { return ids[static_cast<std::size_t>(k)]; };
  const std::vector<bool> expected = {true, false, false, true, false, true};
  for (int k = 0; k < 6; ++k) {
    EXPECT_EQ(is_first_for_rank(map, id_at, k), expected[static_cast<std::size_t>(k)]) << k;
  }
}

}  // namespace
}  // namespace moelink
