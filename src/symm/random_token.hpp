// 128 random bits: a name that nobody can guess, or the proof of having been told it.
#pragma once

#include <array>
#include <string>
#include <string_view>

namespace moelink {

struct RandomToken {
  static constexpr std::size_t kBytes = 16;

  std::array<char, kBytes> bytes{};

  // From the system's generator. Throws Error(kSystem).
  static RandomToken make();
  // Throws Error(kInternal) unless `bytes` has exactly kBytes.
  static RandomToken decode(std::string_view bytes);

  std::string_view view() const { return {bytes.data(), bytes.size()}; }
  std::string hex() const;

  friend auto operator<=>(const RandomToken&, const RandomToken&) = default;
};

}  // namespace moelink
