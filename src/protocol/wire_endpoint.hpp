// How a rank tells its peers where the endpoints of its network cards are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moelink {

struct WireEndpoint {
  std::string provider;                // peers must use the same
  std::vector<std::string> addresses;  // one for each NIC, opaque, as the provider gave it

  friend bool operator==(const WireEndpoint&, const WireEndpoint&) = default;
};

inline constexpr std::uint8_t kWireEndpointVersion = 1;
inline constexpr std::size_t kMaxAddressBytes = 255;
inline constexpr std::size_t kMaxProviderBytes = 255;

// Longer texts than the limits above must not be passed.
std::string encode_endpoint(const WireEndpoint& endpoint);
// nullopt if the bytes are no endpoint of this version.
std::optional<WireEndpoint> decode_endpoint(std::string_view bytes);

}  // namespace moelink
