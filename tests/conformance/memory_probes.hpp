// What tests of symmetric memory look at, usable in ranks that are threads or processes.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "base/check.hpp"
#include "conformance/test_timeout.hpp"
#include "symm/symmetric_memory.hpp"

namespace moelink::test {

inline Deadline soon() { return Deadline::after(test_timeout(std::chrono::seconds(30))); }

// Conditions inside ranks, which may be processes and so cannot use GoogleTest's own.
template <class... Args>
void require(bool holds, fmt::format_string<Args...> format, Args&&... args) {
  if (!holds) throw std::runtime_error(fmt::format(format, std::forward<Args>(args)...));
}

inline std::size_t count_open_descriptors() {
  // Counting opens a descriptor itself, which another thread must not count.
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

inline std::size_t count_mappings(const std::string& containing) {
  std::ifstream maps("/proc/self/maps");
  std::size_t count = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.find(containing) != std::string::npos) ++count;
  }
  return count;
}

inline void wait_until_dead(const SymmetricMemory& memory, Rank rank) {
  const Deadline deadline = soon();
  while (memory.peer_alive(rank)) {
    require(!deadline.expired(), "rank {} still seems alive", rank.value());
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// Small numbers that differ for each pair of ranks.
inline std::uint64_t mark_of(Rank writer, Rank owner) {
  return static_cast<std::uint64_t>(writer.value()) * 1000 +
         static_cast<std::uint64_t>(owner.value()) + 1;
}

inline std::uint64_t& word_of(SymmetricMemory& memory, Rank owner, std::size_t position) {
  return reinterpret_cast<std::uint64_t*>(memory.region(owner))[position];
}

inline void copy_by_cpu(void* to, const void* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
}

}  // namespace moelink::test
