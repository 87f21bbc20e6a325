// What a peer must know to put into a region of registered memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace moelink {

inline constexpr std::size_t kMaxNics = 8;  // that one rank stripes over

struct WireRegion {
  std::uint64_t address = 0;  // what offset 0 is called on the wire; 0 where offsets are
  std::uint64_t bytes = 0;
  std::uint32_t num_keys = 0;  // one for each NIC of the owner
  std::array<std::uint64_t, kMaxNics> keys{};

  friend bool operator==(const WireRegion&, const WireRegion&) = default;
};

inline constexpr std::uint32_t kWireRegionVersion = 1;
inline constexpr std::size_t kWireRegionBytes =
    2 * sizeof(std::uint32_t) + (2 + kMaxNics) * sizeof(std::uint64_t);
static_assert(kWireRegionBytes == 88);

std::string encode_region(const WireRegion& region);
// nullopt if the bytes are no region of this version.
std::optional<WireRegion> decode_region(std::string_view bytes);

}  // namespace moelink
