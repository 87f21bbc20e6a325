// Encodes and decodes descriptors of registered memory.
#include "protocol/wire_region.hpp"

#include "protocol/byte_order.hpp"

namespace moelink {

namespace {

// Byte map: version | number of keys | address | bytes | keys.
constexpr std::size_t kNumKeysOffset = sizeof(std::uint32_t);
constexpr std::size_t kAddressOffset = kNumKeysOffset + sizeof(std::uint32_t);
constexpr std::size_t kBytesOffset = kAddressOffset + sizeof(std::uint64_t);
constexpr std::size_t kKeysOffset = kBytesOffset + sizeof(std::uint64_t);
static_assert(kKeysOffset + kMaxNics * sizeof(std::uint64_t) == kWireRegionBytes);

constexpr std::size_t key_offset(std::size_t key) {
  return kKeysOffset + key * sizeof(std::uint64_t);
}

}  // namespace

std::string encode_region(const WireRegion& region) {
  std::array<std::uint8_t, kWireRegionBytes> out{};
  store_little_endian(kWireRegionVersion, out.data());
  store_little_endian(region.num_keys, out.data() + kNumKeysOffset);
  store_little_endian(region.address, out.data() + kAddressOffset);
  store_little_endian(region.bytes, out.data() + kBytesOffset);
  for (std::size_t i = 0; i < kMaxNics; ++i) {
    store_little_endian(region.keys[i], out.data() + key_offset(i));
  }
  return std::string(reinterpret_cast<const char*>(out.data()), out.size());
}

std::optional<WireRegion> decode_region(std::string_view bytes) {
  if (bytes.size() != kWireRegionBytes) return std::nullopt;
  const auto* in = reinterpret_cast<const std::uint8_t*>(bytes.data());
  if (load_little_endian<std::uint32_t>(in) != kWireRegionVersion) return std::nullopt;
  WireRegion region;
  region.num_keys = load_little_endian<std::uint32_t>(in + kNumKeysOffset);
  region.address = load_little_endian<std::uint64_t>(in + kAddressOffset);
  region.bytes = load_little_endian<std::uint64_t>(in + kBytesOffset);
  if (region.num_keys > kMaxNics) return std::nullopt;
  for (std::size_t i = 0; i < kMaxNics; ++i) {
    region.keys[i] = load_little_endian<std::uint64_t>(in + key_offset(i));
  }
  return region;
}

}  // namespace moelink
