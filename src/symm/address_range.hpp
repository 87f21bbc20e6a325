// Owner of a reserved, aligned range of addresses that holds one region per rank.
#pragma once

#include <cstddef>

#include "moelink/types.hpp"

namespace moelink {

inline constexpr std::size_t kRegionAlignment = std::size_t{2} << 20;  // bytes, a huge page
inline constexpr std::size_t kPageBytes = 4096;

// What helps when a region cannot be had.
inline constexpr const char* kAskForLess =
    "lower max_symmetric_bytes or MOELINK_MAX_SYMMETRIC_BYTES";

// Smallest multiple of `unit` that holds `bytes`. Saturates instead of wrapping around.
std::size_t round_up(std::size_t bytes, std::size_t unit);
std::size_t round_up_to_pages(std::size_t bytes);

// Unmaps everything in the range when it goes. Not copyable, not movable: regions are mapped into
// it.
class AddressRange {
 public:
  // Reserves (without using memory) `num_regions` regions of `region_bytes` each, every one aligned
  // to kRegionAlignment. Throws Error(kSystem) with the sizes and the process's limits.
  AddressRange(int num_regions, std::size_t region_bytes);
  ~AddressRange();
  AddressRange(const AddressRange&) = delete;
  AddressRange& operator=(const AddressRange&) = delete;

  std::byte* region(Rank rank) const { return base_ + rank.index() * stride_; }
  std::size_t region_bytes() const { return region_bytes_; }

  // Put memory into the reserved place of `rank`; throw as the constructor does.
  void map_file(Rank rank, int fd);
  void map_anonymous(Rank rank);

 private:
  void map(Rank rank, int flags, int fd);

  std::byte* base_ = nullptr;
  std::size_t stride_ = 0;
  std::size_t region_bytes_ = 0;
  std::size_t total_bytes_ = 0;
};

// Throws Error(kSystem): `action` failed with `error_number` for a region of `region_bytes`, with
// the limits of this process that may be the reason and how to ask for less.
[[noreturn]] void fail_with_limits(int error_number, const char* action, std::size_t region_bytes);

// Throws Error(kSystem) if a file of `region_bytes` would exceed RLIMIT_FSIZE. To be asked before
// the file grows, because exceeding it raises a signal.
void require_file_size_allowed(std::size_t region_bytes);

}  // namespace moelink
