// Parts of the shared memory of low latency blocks: aligned, disjoint, and large enough.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "kernels/low_latency/shared_memory.hpp"

namespace moelink::kernels {
namespace {

struct Part {
  std::uint32_t begin;
  std::size_t bytes;
};

void expect_disjoint(const std::vector<Part>& parts, std::uint32_t total) {
  std::size_t end = 0;
  for (const Part& part : parts) {
    EXPECT_EQ(part.begin % 16, 0U);
    EXPECT_GE(part.begin, end);
    end = part.begin + part.bytes;
  }
  EXPECT_LE(end, total);
}

std::size_t board_bytes(int num_ranks, int num_local) {
  return static_cast<std::size_t>(num_ranks) * LineArea::control_bytes(num_local);
}

TEST(LowLatencyShared, OfADispatchHasRoomForEveryPart) {
  for (const int num_ranks : {1, 2, 3, 8, 144}) {
    for (const int num_topk : {1, 8, kMaxTopk}) {
      constexpr std::size_t kBody = 7168 * 2;
      const auto ranks = static_cast<std::size_t>(num_ranks);
      const auto parts = LowLatencyShared::of_dispatch(num_ranks, 5 * num_ranks, num_topk, kBody);
      const std::size_t targets = static_cast<std::size_t>(std::min(num_ranks, num_topk));
      const std::size_t headers = std::max(targets * RowHeader::bytes(num_topk),
                                           LowLatencyRoles::kNumWarps * RowHeader::bytes(kMaxTopk));
      expect_disjoint({{parts.board, board_bytes(num_ranks, 5)},
                       {parts.is_there, ranks},
                       {parts.first_row, 4 * (ranks + 1)},
                       {parts.targets, LowLatencyShared::kTargetsBytes},
                       {parts.headers, headers},
                       {parts.body, kBody + kLineBytes}},
                      parts.total);
      EXPECT_EQ(parts.heard, parts.board);
    }
  }
}

TEST(LowLatencyShared, OfACombineKeepsWhatWasSentApartFromWhatCame) {
  for (const int num_ranks : {1, 3, 144}) {
    const auto parts = LowLatencyShared::of_combine(num_ranks, 7 * num_ranks);
    expect_disjoint({{parts.board, board_bytes(num_ranks, 7)},
                     {parts.is_there, static_cast<std::size_t>(num_ranks)},
                     {parts.heard, board_bytes(num_ranks, 0)}},
                    parts.total);
  }
}

TEST(LowLatencyShared, OfTheLargestRowFitsABlockOfAnyGpu) {
  constexpr std::size_t kLeastPerBlock = std::size_t{99} << 10;  // compute capability 8.6 and 8.9
  const std::size_t body = RowBody::make(kWireBFloat16, kMaxLowLatencyHidden).bytes();
  EXPECT_LE(LowLatencyShared::of_dispatch(8, 2048, kMaxTopk, body).total, kLeastPerBlock);
}

}  // namespace
}  // namespace moelink::kernels
