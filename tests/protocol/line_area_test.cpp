// Lines, what they carry, and the slots made of them.
#include "protocol/line_area.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace moelink {
namespace {

class Lines : public testing::TestWithParam<LineFormat> {};

INSTANTIATE_TEST_SUITE_P(Formats, Lines, testing::Values(LineFormat::kSplit, LineFormat::kWhole),
                         [](const auto& instance) {
                           return std::string(instance.param == LineFormat::kSplit ? "Split"
                                                                                   : "Whole");
                         });

TEST_P(Lines, AreJustEnough) {
  const std::size_t data = line_data_bytes(GetParam());
  EXPECT_EQ(data, GetParam() == LineFormat::kWhole ? 120U : 64U);
  EXPECT_EQ(num_lines(GetParam(), 0), 0U);
  for (std::size_t bytes = 1; bytes < 5 * data; ++bytes) {
    const std::size_t lines = num_lines(GetParam(), bytes);
    EXPECT_GE(lines * data, bytes);
    EXPECT_LT((lines - 1) * data, bytes);
  }
}

TEST_P(Lines, CarryEveryWordOfAMessageOnce) {
  for (const std::size_t bytes : {8U, 56U, 64U, 72U, 120U, 128U, 240U, 248U, 16384U}) {
    const std::size_t lines = num_lines(GetParam(), bytes);
    std::vector<int> carried(lines * line_data_bytes(GetParam()) / kLineWordBytes);
    for (int v = 0; v < static_cast<int>(lines) * kVectorsPerLine; ++v) {
      const LineWords words = words_of_vector(GetParam(), v);
      ASSERT_EQ(words.first % kLineWordBytes, 0U);
      ++carried.at(words.first / kLineWordBytes);
      if (words.has_second) ++carried.at(words.first / kLineWordBytes + 1);
    }
    EXPECT_EQ(carried, std::vector<int>(carried.size(), 1)) << bytes;
  }
}

TEST_P(Lines, KeepTheWordsOfALineInIt) {
  const auto data = static_cast<std::uint32_t>(line_data_bytes(GetParam()));
  for (int v = 0; v < 100 * kVectorsPerLine; ++v) {
    const LineWords words = words_of_vector(GetParam(), v);
    EXPECT_EQ(words.first / data, static_cast<std::uint32_t>(v / kVectorsPerLine)) << v;
  }
}

// Odd in every respect.
LineArea small_area(LineFormat format) {
  return {.format = format,
          .num_ranks = 3,
          .max_local_experts = 21,
          .max_tokens = 5,
          .num_topk = 3,
          .hidden = 384};
}

using Span = std::pair<std::size_t, std::size_t>;  // begin, end

std::vector<Span> slots_of(const LineArea& area, Epoch epoch) {
  std::vector<Span> spans;
  const auto add = [&spans](std::size_t begin, std::size_t bytes) {
    spans.emplace_back(begin, begin + bytes);
  };
  for (Rank source(0); source.value() < area.num_ranks; source = source.next()) {
    add(area.control_offset(epoch, source), area.control_stride());
    for (std::size_t i = 0; i < static_cast<std::size_t>(area.max_tokens); ++i) {
      add(area.row_offset(epoch, source, i), area.row_stride());
    }
  }
  for (TokenIdx token(0); token.value() < area.max_tokens; token = token.next()) {
    for (int k = 0; k < area.num_topk; ++k) {
      add(area.return_offset(epoch, token, k), area.return_stride());
    }
  }
  std::ranges::sort(spans);
  return spans;
}

TEST_P(Lines, SlotsOfAHalfFillItWithoutGapsOrOverlaps) {
  const LineArea area = small_area(GetParam());
  for (const Epoch epoch : {Epoch(6), Epoch(7)}) {
    const std::vector<Span> spans = slots_of(area, epoch);
    EXPECT_EQ(spans.size(), 3U * (1 + 5) + 5 * 3);
    EXPECT_EQ(spans.front().first, area.half_offset(epoch));
    EXPECT_EQ(spans.back().second, area.half_offset(epoch) + area.half_bytes());
    for (std::size_t i = 1; i < spans.size(); ++i) EXPECT_EQ(spans[i - 1].second, spans[i].first);
    for (const Span& span : spans) EXPECT_EQ(span.first % kLineBytes, 0U);
  }
}

TEST_P(Lines, HalvesAreDisjointAndUsedInTurn) {
  const LineArea area = small_area(GetParam());
  EXPECT_EQ(slots_of(area, Epoch(4)), slots_of(area, Epoch(6)));
  EXPECT_LE(slots_of(area, Epoch(4)).back().second, slots_of(area, Epoch(5)).front().first);
  EXPECT_LE(slots_of(area, Epoch(5)).back().second, area.total_bytes());
  EXPECT_EQ(area.total_bytes() % kPartAlignment, 0U);
}

TEST_P(Lines, SlotsHoldTheLargestMessages) {
  const std::size_t data = line_data_bytes(GetParam());
  const LineArea area = small_area(GetParam());
  EXPECT_GE(area.control_stride() / kLineBytes * data, LineArea::control_bytes(21));
  EXPECT_GE(area.row_stride() / kLineBytes * data, RowHeader::bytes(3) + 768);
  EXPECT_GE(area.return_stride() / kLineBytes * data, 768U);
}

TEST(LineArea, HasTheSizesWorkedOutByHand) {
  LineArea area{.format = LineFormat::kWhole,
                .num_ranks = 2,
                .max_local_experts = 2,
                .max_tokens = 3,
                .num_topk = 2,
                .hidden = 128};
  // 40 bytes of control in one line; rows of 24 + 256 bytes and returns of 256 in three each.
  EXPECT_EQ(area.control_stride(), 128U);
  EXPECT_EQ(area.row_stride(), 384U);
  EXPECT_EQ(area.return_stride(), 384U);
  EXPECT_EQ(area.half_bytes(), 2 * 128U + 6 * 384U + 6 * 384U);
  EXPECT_EQ(area.total_bytes(), 9728U);
  EXPECT_EQ(area.row_offset(Epoch(1), Rank(1), 2), 4864U + 256 + 5 * 384);
  EXPECT_EQ(area.return_offset(Epoch(2), TokenIdx(2), 1), 256U + 6 * 384 + 5 * 384);
  area.format = LineFormat::kSplit;  // five lines and four
  EXPECT_EQ(area.control_stride(), 128U);
  EXPECT_EQ(area.row_stride(), 640U);
  EXPECT_EQ(area.return_stride(), 512U);
  EXPECT_EQ(area.half_bytes(), 2 * 128U + 6 * 640U + 6 * 512U);
  EXPECT_EQ(area.total_bytes(), 14336U);
}

TEST(LineArea, ControlMessagesAreWholeWords) {
  EXPECT_EQ(LineArea::control_bytes(0), sizeof(LowLatencyHeader));
  EXPECT_EQ(LineArea::control_bytes(3), sizeof(LowLatencyHeader) + 16);
  EXPECT_EQ(LineArea::control_bytes(4), sizeof(LowLatencyHeader) + 16);
}

TEST(WireSelection, SurvivesPackingAndIsNeverZero) {
  for (const int local : {0, 1, 254, 255, 256, WireSelection::kMaxLocalExperts - 1}) {
    for (const int index : {0, 1, 255, 256, kMaxLowLatencyTokens - 1}) {
      const std::uint32_t packed = WireSelection{local, index}.pack();
      EXPECT_NE(packed, 0U);
      EXPECT_EQ(WireSelection::unpack(packed).local, local);
      EXPECT_EQ(WireSelection::unpack(packed).index, index);
    }
  }
}

TEST(WireSelection, ThatIsNotHereIsZero) {
  EXPECT_EQ(WireSelection{}.pack(), 0U);
  EXPECT_EQ((WireSelection{-1, 7}).pack(), 0U);
  EXPECT_EQ(WireSelection::unpack(0).local, -1);
}

TEST(RowHeader, IsWholeWords) {
  EXPECT_EQ(RowHeader::bytes(1), 16U);
  EXPECT_EQ(RowHeader::bytes(kMaxTopk), 264U);
}

constexpr std::uint32_t wire_format(ScaleFormat format) {
  return 1 + static_cast<std::uint32_t>(format);
}

TEST(RowBody, HasScalesOfWholeWordsBeforeThePayload) {
  const auto expect = [](std::uint32_t format, std::size_t hidden, std::size_t scales,
                         std::size_t payload) {
    const RowBody body = RowBody::make(format, hidden);
    EXPECT_EQ(body.scale_bytes, scales) << "format " << format << ", hidden " << hidden;
    EXPECT_EQ(body.payload_bytes, payload);
    EXPECT_EQ(body.bytes(), scales + payload);
  };
  expect(kWireBFloat16, 7168, 0, 14336);
  expect(wire_format(ScaleFormat::kFloat32), 7168, 224, 7168);
  expect(wire_format(ScaleFormat::kPowerOfTwo), 7168, 224, 7168);
  expect(wire_format(ScaleFormat::kPackedUE8M0), 7168, 56, 7168);
  expect(wire_format(ScaleFormat::kFloat32), 384, 16, 384);  // 12, padded
  expect(wire_format(ScaleFormat::kPackedUE8M0), 512, 8, 512);
}

TEST(RowBody, FitsTheRowsOfAnAreaInEveryFormat) {
  for (std::size_t hidden = kScaleBlock; hidden <= 16384; hidden += kScaleBlock) {
    for (const ScaleFormat format :
         {ScaleFormat::kFloat32, ScaleFormat::kPowerOfTwo, ScaleFormat::kPackedUE8M0}) {
      EXPECT_LE(RowBody::make(wire_format(format), hidden).bytes(), 2 * hidden);
    }
  }
}

}  // namespace
}  // namespace moelink
