// Descriptors of regions: round trip and malformed input.
#include "protocol/wire_region.hpp"

#include <gtest/gtest.h>

namespace moelink {
namespace {

WireRegion some_region() {
  WireRegion region{
      .address = 0x7f00'1234'5678'9abc, .bytes = std::uint64_t{3} << 40, .num_keys = kMaxNics};
  for (std::size_t i = 0; i < kMaxNics; ++i) region.keys[i] = ~std::uint64_t{i * 0x0101'0101};
  return region;
}

TEST(WireRegion, RoundTripsInTheSizeItStates) {
  const std::string bytes = encode_region(some_region());
  EXPECT_EQ(bytes.size(), kWireRegionBytes);
  const auto seen = decode_region(bytes);
  ASSERT_TRUE(seen.has_value());
  EXPECT_EQ(*seen, some_region());
  EXPECT_EQ(decode_region(encode_region(WireRegion{})), WireRegion{});
}

TEST(WireRegion, OfAnotherSizeVersionOrNumberOfKeysIsMalformed) {
  const std::string bytes = encode_region(some_region());
  EXPECT_FALSE(decode_region(bytes.substr(1)).has_value());
  EXPECT_FALSE(decode_region(bytes + '\0').has_value());
  EXPECT_FALSE(decode_region("").has_value());
  std::string other_version = bytes;
  other_version[0] = 99;
  EXPECT_FALSE(decode_region(other_version).has_value());
  std::string many_keys = bytes;
  many_keys[4] = static_cast<char>(kMaxNics + 1);
  EXPECT_FALSE(decode_region(many_keys).has_value());
}

}  // namespace
}  // namespace moelink
