// copy_row: every destination gets the row and nothing around it changes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

#include "backend/cpu/simd/simd.hpp"
#include "backend/simd_reference.hpp"

namespace moelink::simd {
namespace {

constexpr std::size_t kGuardBytes = 64;
constexpr std::uint8_t kUntouched = 0xa5;

// Memory that begins `offset` bytes after a cache line's start, with guards on both sides.
class GuardedRow {
 public:
  GuardedRow(std::size_t bytes, std::size_t offset)
      : bytes_(bytes), memory_(bytes + 4 * kGuardBytes, kUntouched) {
    const auto start = reinterpret_cast<std::uintptr_t>(memory_.data());
    begin_ = kGuardBytes + (64 - start % 64) % 64 + offset;
  }

  void* data() { return memory_.data() + begin_; }

  bool holds(const std::vector<std::uint8_t>& row) const {
    return std::equal(row.begin(), row.end(), memory_.begin() + static_cast<long>(begin_));
  }

  bool guards_intact() const {
    std::size_t untouched = 0;
    for (std::size_t i = 0; i < memory_.size(); ++i) {
      const bool outside = i < begin_ || i >= begin_ + bytes_;
      untouched += outside && memory_[i] == kUntouched ? 1u : 0u;
    }
    return untouched == memory_.size() - bytes_;
  }

 private:
  std::size_t bytes_;
  std::vector<std::uint8_t> memory_;
  std::size_t begin_ = 0;
};

struct CopyCase {
  std::size_t bytes;
  std::size_t num_destinations;
  std::size_t offset_step;  // destination i begins i * offset_step + 16 bytes into a line
  StorePolicy policy;
};

void expect_copied(const CopyCase& shape) {
  GuardedRow source(shape.bytes, 16);
  std::vector<std::uint8_t> row(shape.bytes);
  std::iota(row.begin(), row.end(), std::uint8_t{1});
  std::copy(row.begin(), row.end(), static_cast<std::uint8_t*>(source.data()));
  std::vector<std::unique_ptr<GuardedRow>> rows;
  std::vector<void*> destinations;
  for (std::size_t i = 0; i < shape.num_destinations; ++i) {
    rows.push_back(std::make_unique<GuardedRow>(shape.bytes, (i * shape.offset_step + 16) % 64));
    destinations.push_back(rows.back()->data());
  }
  copy_row(source.data(), destinations, shape.bytes, shape.policy);
  streaming_fence();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_TRUE(rows[i]->holds(row)) << shape.bytes << " bytes, destination " << i;
    EXPECT_TRUE(rows[i]->guards_intact()) << shape.bytes << " bytes, destination " << i;
  }
}

void expect_all_sizes_copied(StorePolicy policy) {
  simd_reference::for_each_target([&](const std::string& target) {
    SCOPED_TRACE(target);
    for (const std::size_t bytes : {16u, 48u, 64u, 80u, 112u, 512u, 1008u, 4096u, 14336u}) {
      for (const std::size_t num_destinations : {1u, 2u, 3u, 8u, 17u}) {
        expect_copied({bytes, num_destinations, 0, policy});
        expect_copied({bytes, num_destinations, 16, policy});
      }
    }
  });
}

TEST(SimdCopy, CachedRowReachesEveryDestination) { expect_all_sizes_copied(StorePolicy::kCached); }

TEST(SimdCopy, StreamedRowReachesEveryDestination) {
  expect_all_sizes_copied(StorePolicy::kStreaming);
}

TEST(SimdCopy, NothingHappensWithoutDestinations) {
  const std::vector<std::uint8_t> row(64);
  copy_row(row.data(), {}, row.size(), StorePolicy::kStreaming);
}

TEST(SimdCopy, NothingIsWrittenForEmptyRow) {
  GuardedRow destination(0, 0);
  void* const destinations[] = {destination.data()};
  copy_row(destination.data(), destinations, 0, StorePolicy::kStreaming);
  EXPECT_TRUE(destination.guards_intact());
}

}  // namespace
}  // namespace moelink::simd
