// What the host works out for the low latency kernels agrees with the area that it describes.
#include "kernels/low_latency/line_plan.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace moelink::kernels {
namespace {

constexpr LineFormat kFormats[] = {LineFormat::kSplit, LineFormat::kWhole};
constexpr std::uint32_t kWireFormats[] = {
    kWireBFloat16, 1 + static_cast<std::uint32_t>(ScaleFormat::kFloat32),
    1 + static_cast<std::uint32_t>(ScaleFormat::kPowerOfTwo),
    1 + static_cast<std::uint32_t>(ScaleFormat::kPackedUE8M0)};

constexpr int kNumLocal = 15;  // experts of the call; an area may have room for more

LineArea area_of(LineFormat format, std::size_t hidden, int num_topk) {
  return {.format = format,
          .num_ranks = 3,
          .max_local_experts = 17,
          .max_tokens = 5,
          .num_topk = num_topk,
          .hidden = hidden};
}

TEST(LinePlan, FindsTheSlotsOfItsArea) {
  for (const LineFormat format : kFormats) {
    const LineArea area = area_of(format, 640, 4);
    const LinePlan plan = LinePlan::make(area, kNumLocal, kWireBFloat16);
    for (const Epoch epoch : {Epoch(8), Epoch(9)}) {
      for (int source = 0; source < 3; ++source) {
        EXPECT_EQ(plan.control_offset(epoch, source), area.control_offset(epoch, Rank(source)));
        for (int i = 0; i < 5; ++i) {
          EXPECT_EQ(plan.row_offset(epoch, source * 5 + i),
                    area.row_offset(epoch, Rank(source), static_cast<std::size_t>(i)));
        }
      }
      for (int selection = 0; selection < 5 * 4; ++selection) {
        EXPECT_EQ(plan.return_offset(epoch, selection),
                  area.return_offset(epoch, TokenIdx(selection / 4), selection % 4));
      }
    }
  }
}

TEST(LinePlan, FindsSlotsBeyondFourGibibytes) {
  LineArea area = area_of(LineFormat::kSplit, 7168, 8);
  area.num_ranks = 64;
  area.max_tokens = 4096;
  const LinePlan plan = LinePlan::make(area, kNumLocal, kWireBFloat16);
  EXPECT_EQ(plan.row_offset(Epoch(1), 64 * 4096 - 1), area.row_offset(Epoch(1), Rank(63), 4095));
  EXPECT_EQ(plan.return_offset(Epoch(1), 4096 * 8 - 1),
            area.return_offset(Epoch(1), TokenIdx(4095), 7));
}

void expect_parts_cover(std::int32_t num_parts, std::int32_t num_vectors) {
  EXPECT_GE(num_parts * kPartVectors, num_vectors);
  EXPECT_LT((num_parts - 1) * kPartVectors, num_vectors);
}

TEST(LinePlan, DividesMessagesIntoPartsOfWholeLines) {
  for (const LineFormat format : kFormats) {
    for (const std::uint32_t wire : kWireFormats) {
      for (const std::size_t hidden : {512U, 2560U, 7168U, 16384U}) {
        const LineArea area = area_of(format, hidden, 8);
        const LinePlan plan = LinePlan::make(area, kNumLocal, wire);
        const std::size_t bytes = 72 + RowBody::make(wire, hidden).bytes();
        EXPECT_EQ(plan.row_vectors, static_cast<int>(num_lines(format, bytes)) * kVectorsPerLine);
        EXPECT_LE(static_cast<std::size_t>(plan.row_vectors) * kLineVectorBytes, area.row_stride());
        EXPECT_EQ(static_cast<std::size_t>(plan.return_vectors) * kLineVectorBytes,
                  area.return_stride());
        expect_parts_cover(plan.row_parts, plan.row_vectors);
        expect_parts_cover(plan.return_parts, plan.return_vectors);
        EXPECT_EQ(plan.header_bytes, 72U);
        EXPECT_EQ(plan.body_start + plan.payload_bytes, bytes);
      }
    }
  }
  EXPECT_EQ(kPartVectors % kVectorsPerLine, 0);
}

TEST(LinePlan, HasControlMessagesAsLongAsTheirCounts) {
  for (const LineFormat format : kFormats) {
    for (const int num_local : {1, 15, 17}) {
      const LinePlan plan = LinePlan::make(area_of(format, 512, 8), num_local, kWireBFloat16);
      const std::size_t lines = num_lines(format, LineArea::control_bytes(num_local));
      EXPECT_EQ(plan.control_vectors, static_cast<int>(lines) * kVectorsPerLine);
      EXPECT_LE(lines * kLineBytes, plan.control_stride);
      EXPECT_EQ(plan.plain_control_vectors, kVectorsPerLine);  // 32 bytes
    }
  }
}

// Scales are looked for in the first vectors alone.
TEST(LinePlan, MixedVectorsHaveAllThatIsNotPayload) {
  for (const LineFormat format : kFormats) {
    for (const std::uint32_t wire : kWireFormats) {
      for (const int num_topk : {1, 8, 11, 32}) {
        const LinePlan plan = LinePlan::make(area_of(format, 16384, num_topk), kNumLocal, wire);
        for (int v = plan.mixed_vectors; v < plan.row_vectors; ++v) {
          EXPECT_GE(words_of_vector(format, v).first, plan.body_start);
        }
        EXPECT_LT(words_of_vector(format, plan.mixed_vectors - kVectorsPerLine).first,
                  plan.body_start);
      }
    }
  }
}

template <LineFormat format>
struct LineOf {
  static constexpr LineFormat kFormat = format;
};

template <LineFormat format>
void expect_steps_apart() {
  for (int v = 0; v < 200; ++v) {
    const LineWords here = words_of_vector(format, v);
    const LineWords next = words_of_vector(format, v + 32);
    EXPECT_EQ(next.first - here.first, StepBytes<LineOf<format>>::value) << v;
    EXPECT_EQ(next.has_second, here.has_second) << v;
  }
}

TEST(StepBytes, LieBetweenTheWordsOfALanesVectors) {
  expect_steps_apart<LineFormat::kSplit>();
  expect_steps_apart<LineFormat::kWhole>();
}

}  // namespace
}  // namespace moelink::kernels
