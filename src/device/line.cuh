// Lines: data that carries its own sign of arrival, one vector of 16 bytes per lane.
#pragma once

#include <cstdint>

#include "protocol/line_area.hpp"

namespace moelink::device {

__device__ inline std::uint64_t word_of(std::uint32_t low, std::uint32_t high) {
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

// Relaxed at system scope: the lanes of a warp that hold a line move it with one instruction.
__device__ inline uint4 load_vector(const uint4* from) {
  uint4 value;
  asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from)
               : "memory");
  return value;
}
__device__ inline void store_vector(uint4* to, const uint4& value) {
  asm volatile("st.relaxed.sys.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(value.x),
               "r"(value.y), "r"(value.z), "r"(value.w)
               : "memory");
}

// What every line type offers: seal() makes vector number `vector` of a message from its words;
// has_arrived() tells whether the calling lane's vector says so: a line has arrived when all its
// lanes say so. second() is there only if words_of_vector() says so.
struct WholeLine {
  static constexpr LineFormat kFormat = LineFormat::kWhole;

  static __device__ uint4 seal(std::uint64_t first, std::uint64_t second, int vector, Epoch epoch) {
    const std::uint64_t last = is_flag(vector) ? epoch.value() : second;
    return make_uint4(low(first), high(first), low(last), high(last));
  }
  static __device__ bool has_arrived(const uint4& value, int vector, Epoch epoch) {
    return !is_flag(vector) || seen(value, vector) == epoch.value();
  }
  // The epoch that the vector shows, for messages.
  static __device__ std::uint64_t seen(const uint4& value, int) {
    return word_of(value.z, value.w);
  }
  static __device__ std::uint64_t first(const uint4& value) { return word_of(value.x, value.y); }
  static __device__ std::uint64_t second(const uint4& value) { return word_of(value.z, value.w); }

 private:
  static __device__ bool is_flag(int vector) {
    return vector % kVectorsPerLine == kVectorsPerLine - 1;
  }
  static __device__ std::uint32_t low(std::uint64_t word) {
    return static_cast<std::uint32_t>(word);
  }
  static __device__ std::uint32_t high(std::uint64_t word) {
    return static_cast<std::uint32_t>(word >> 32);
  }
};

// Epochs are compared in their lower half: a slot is written at least once in 2^32 operations, or
// its area has been closed since.
struct SplitLine {
  static constexpr LineFormat kFormat = LineFormat::kSplit;

  static __device__ uint4 seal(std::uint64_t first, std::uint64_t, int, Epoch epoch) {
    const auto flag = static_cast<std::uint32_t>(epoch.value());
    return make_uint4(static_cast<std::uint32_t>(first), flag,
                      static_cast<std::uint32_t>(first >> 32), flag);
  }
  static __device__ bool has_arrived(const uint4& value, int, Epoch epoch) {
    const auto flag = static_cast<std::uint32_t>(epoch.value());
    return value.y == flag && value.w == flag;
  }
  static __device__ std::uint64_t seen(const uint4& value, int) { return value.y; }
  static __device__ std::uint64_t first(const uint4& value) { return word_of(value.x, value.z); }
  static __device__ std::uint64_t second(const uint4&) { return 0; }
};

}  // namespace moelink::device
