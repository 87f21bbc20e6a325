// Payloads of rendezvous frames: round trip and malformed input.
#include "protocol/rendezvous_frame.hpp"

#include <gtest/gtest.h>

namespace moelink::rendezvous {
namespace {

TEST(RendezvousFrame, PartRoundTripsWithEmptyAndBinaryBlobs) {
  for (const std::string& blob :
       {std::string(), std::string("a\0b", 3), std::string(5000, '\xff')}) {
    const auto part = decode_part(encode_part(1'000'000'000'007, "open", blob));
    ASSERT_TRUE(part.has_value());
    EXPECT_EQ(part->sequence, 1'000'000'000'007u);
    EXPECT_EQ(part->what, "open");
    EXPECT_EQ(part->blob, blob);
  }
}

TEST(RendezvousFrame, PartCutsALongName) {
  const auto part = decode_part(encode_part(1, std::string(1000, 'n'), "blob"));
  ASSERT_TRUE(part.has_value());
  EXPECT_EQ(part->what, std::string(kMaxWhatBytes, 'n'));
  EXPECT_EQ(part->blob, "blob");
}

TEST(RendezvousFrame, PartTooShortForItsNameIsMalformed) {
  const std::string payload = encode_part(1, "name", "");
  for (std::size_t size = 0; size < payload.size(); ++size) {
    EXPECT_FALSE(decode_part(payload.substr(0, size)).has_value()) << size;
  }
}

TEST(RendezvousFrame, GiveUpRoundTripsAndRefusesOtherSizes) {
  const std::string payload = encode(GiveUp{.sequence = 7, .span_ms = 500});
  const auto give_up = decode_give_up(payload);
  ASSERT_TRUE(give_up.has_value());
  EXPECT_EQ(give_up->sequence, 7u);
  EXPECT_EQ(give_up->span_ms, 500u);
  EXPECT_FALSE(decode_give_up(payload + "x").has_value());
  EXPECT_FALSE(decode_give_up(payload.substr(1)).has_value());
}

TEST(RendezvousFrame, FailureRoundTripsAndRefusesUnknownCodes) {
  const auto note = decode_failure(encode(FailureNote{ErrorCode::kPeerLost, "lost rank 3"}));
  ASSERT_TRUE(note.has_value());
  EXPECT_EQ(note->code, ErrorCode::kPeerLost);
  EXPECT_EQ(note->text, "lost rank 3");
  EXPECT_FALSE(decode_failure("short").has_value());
  EXPECT_FALSE(decode_failure(std::string(8, '\x7f')).has_value());
}

}  // namespace
}  // namespace moelink::rendezvous
