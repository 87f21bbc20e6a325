// Little-endian integers in byte buffers.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>

namespace moelink {

template <std::unsigned_integral T>
constexpr void store_little_endian(T value, std::uint8_t* out) {
  for (std::size_t i = 0; i < sizeof(T); ++i) out[i] = static_cast<std::uint8_t>(value >> (8 * i));
}

template <std::unsigned_integral T>
constexpr T load_little_endian(const std::uint8_t* in) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>(value | static_cast<T>(static_cast<T>(in[i]) << (8 * i)));
  }
  return value;
}

}  // namespace moelink
