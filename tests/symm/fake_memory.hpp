// A one-rank symmetric memory that records what was discarded.
#pragma once

#include <sys/mman.h>

#include <stdexcept>
#include <vector>

#include "symm/arena.hpp"

namespace moelink::test {

class FakeMemory final : public SymmetricMemory {
 public:
  explicit FakeMemory(std::size_t bytes) : bytes_(bytes) {
    void* const start = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) throw std::runtime_error("mmap failed");
    start_ = static_cast<std::byte*>(start);
  }
  ~FakeMemory() override { ::munmap(start_, bytes_); }

  Rank rank() const override { return Rank(0); }
  int num_ranks() const override { return 1; }
  std::size_t size_bytes() const override { return bytes_; }
  std::byte* region(Rank) const override { return start_; }
  bool peer_alive(Rank) const override { return true; }
  void announce_departure() override {}
  void discard(std::size_t offset, std::size_t bytes) override {
    discarded.push_back({offset, bytes});
  }
  const char* kind() const override { return "fake"; }

  std::vector<ArenaSpan> discarded;

 private:
  std::size_t bytes_;
  std::byte* start_ = nullptr;
};

}  // namespace moelink::test
