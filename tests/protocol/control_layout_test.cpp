// Byte map of the control area: nothing overlaps, everything lies on its own line.
#include "protocol/control_layout.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace moelink {
namespace {

struct Piece {
  std::size_t offset;
  std::size_t bytes;
};

std::vector<Piece> pieces_of(const ControlLayout& layout) {
  std::vector<Piece> pieces = {
      {ControlLayout::fault_offset(), sizeof(FaultRecord)},
      {ControlLayout::doorbell_offset(), sizeof(Doorbell)},
  };
  const std::size_t counts = CountMatrix::row_length(layout.num_ranks, layout.max_num_experts);
  for (Rank source(0); source.value() < layout.num_ranks; source = source.next()) {
    for (int channel = 0; channel < kNumSignalChannels; ++channel) {
      pieces.push_back({layout.signal_offset(static_cast<SignalChannel>(channel), source), 8});
    }
    for (const Epoch epoch : {Epoch(0), Epoch(1)}) {
      pieces.push_back({layout.exchange_offset(epoch, source),
                        sizeof(ExchangeBlock) + counts * sizeof(std::int32_t)});
      pieces.push_back(
          {layout.mask_offset(epoch, source, Rank(0)), static_cast<std::size_t>(layout.num_ranks)});
    }
  }
  std::ranges::sort(pieces, {}, &Piece::offset);
  return pieces;
}

TEST(ControlLayout, PiecesDoNotOverlapAndStartOnCacheLines) {
  for (const int num_ranks : {1, 2, 3, 8, 64}) {
    for (const int max_num_experts : {1, 64, 2048}) {
      const ControlLayout layout{num_ranks, max_num_experts};
      std::size_t end = 0;
      for (const Piece& piece : pieces_of(layout)) {
        EXPECT_GE(piece.offset, end) << num_ranks << " ranks, " << max_num_experts << " experts";
        EXPECT_EQ(piece.offset % ControlLayout::kLine, 0U);
        end = piece.offset + piece.bytes;
      }
      EXPECT_LE(end, layout.total_bytes());
      EXPECT_LT(layout.total_bytes() - end, ControlLayout::kLine);
    }
  }
}

TEST(ControlLayout, SignalsOfDifferentSourcesNeverShareALine) {
  const ControlLayout layout{4, 8};
  const std::size_t one = layout.signal_offset(SignalChannel::kDelivered, Rank(1));
  const std::size_t two = layout.signal_offset(SignalChannel::kDelivered, Rank(2));
  EXPECT_NE(one / ControlLayout::kLine, two / ControlLayout::kLine);
}

TEST(ControlLayout, ConsecutiveEpochsUseDifferentHalvesAndTheNextTheFirstAgain) {
  const ControlLayout layout{3, 12};
  for (const std::uint64_t epoch : {1U, 2U, 1'000'000'007U}) {
    const std::size_t here = layout.exchange_offset(Epoch(epoch), Rank(1));
    EXPECT_NE(layout.exchange_offset(Epoch(epoch + 1), Rank(1)), here);
    EXPECT_EQ(layout.exchange_offset(Epoch(epoch + 2), Rank(1)), here);
  }
}

}  // namespace
}  // namespace moelink
