// Element types and their traits: one row per type.
#pragma once

#include <cstddef>
#include <cstdint>

#include "moelink/host_device.hpp"

namespace moelink {

enum class DType : std::uint8_t {
  kUInt8,  // opaque bytes (INT4, NVFP4, MXFP8 payloads travel as these)
  kInt8,
  kInt32,
  kInt64,
  kBool,
  kFloat16,
  kBFloat16,
  kFloat32,
  kFloat8E4M3,   // OCP FP8 E4M3 ("fn": no infinities), a scale per 128 channels
  kFloat8UE8M0,  // exponent-only scale: the value is 2^(byte - 127)
};

inline constexpr int kNumDTypes = 10;

// Channels that share one scale in the block-scaled FP8 formats.
inline constexpr int kScaleBlock = 128;

enum class Reducible : std::uint8_t { kNo, kYes };

struct DTypeTraits {
  const char* name;
  std::size_t size_bytes;
  Reducible reducible;  // kYes: combine can sum it
};

inline constexpr DTypeTraits kDTypeTraits[kNumDTypes] = {
    {"uint8", 1, Reducible::kNo},         {"int8", 1, Reducible::kNo},
    {"int32", 4, Reducible::kNo},         {"int64", 8, Reducible::kNo},
    {"bool", 1, Reducible::kNo},          {"float16", 2, Reducible::kYes},
    {"bfloat16", 2, Reducible::kYes},     {"float32", 4, Reducible::kYes},
    {"float8_e4m3fn", 1, Reducible::kNo}, {"float8_e8m0fnu", 1, Reducible::kNo},
};

constexpr const DTypeTraits& dtype_traits(DType dtype) {
  return kDTypeTraits[static_cast<int>(dtype)];
}

constexpr std::size_t dtype_size(DType dtype) { return dtype_traits(dtype).size_bytes; }

constexpr const char* dtype_name(DType dtype) { return dtype_traits(dtype).name; }

}  // namespace moelink
