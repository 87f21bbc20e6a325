// Addresses of endpoints: round trip and malformed input.
#include "protocol/wire_endpoint.hpp"

#include <gtest/gtest.h>

#include "protocol/wire_region.hpp"

namespace moelink {
namespace {

TEST(WireEndpoint, RoundTripsBinaryAddressesOfAnyLength) {
  const WireEndpoint endpoint{
      .provider = "tcp;ofi_rxm",
      .addresses = {"", std::string("\0\1\2", 3), std::string(kMaxAddressBytes, '\xfe')}};
  EXPECT_EQ(decode_endpoint(encode_endpoint(endpoint)), endpoint);
  EXPECT_EQ(decode_endpoint(encode_endpoint(WireEndpoint{})), WireEndpoint{});
}

TEST(WireEndpoint, CutShortOrTooLongIsMalformed) {
  const std::string bytes = encode_endpoint({.provider = "verbs", .addresses = {"abc", "de"}});
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(decode_endpoint(bytes.substr(0, size)).has_value()) << size;
  }
  EXPECT_FALSE(decode_endpoint(bytes + "x").has_value());
}

TEST(WireEndpoint, OfAnotherVersionOrWithTooManyAddressesIsMalformed) {
  std::string bytes = encode_endpoint({.provider = "verbs", .addresses = {"abc"}});
  bytes[0] = 2;
  EXPECT_FALSE(decode_endpoint(bytes).has_value());
  const WireEndpoint many{.addresses = std::vector<std::string>(kMaxNics + 1, "a")};
  EXPECT_FALSE(decode_endpoint(encode_endpoint(many)).has_value());
}

}  // namespace
}  // namespace moelink
