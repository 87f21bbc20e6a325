// Reserves addresses and maps regions into them.
#include "symm/address_range.hpp"

#include <sys/mman.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstdint>
#include <limits>
#include <string>

#include "base/check.hpp"

namespace moelink {
namespace {

// More than any supported machine's user addresses: asking for it only says that memory is short.
constexpr std::size_t kMostAddresses = std::size_t{1} << 56;

// Such as "; RLIMIT_AS is 4096 bytes (ulimit -v)"; empty if there is no such limit.
std::string describe_limit(__rlimit_resource resource, const char* name, const char* option) {
  rlimit limit{};
  if (::getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return {};
  return fmt::format("; {} is {} bytes (ulimit {})", name, limit.rlim_cur, option);
}

std::string describe_limits() {
  std::string text = describe_limit(RLIMIT_AS, "RLIMIT_AS", "-v") +
                     describe_limit(RLIMIT_DATA, "RLIMIT_DATA", "-d") +
                     describe_limit(RLIMIT_FSIZE, "RLIMIT_FSIZE", "-f");
  if (text.empty())
    text = "; the process has no limit: memory of the machine or its cgroup is short";
  return text;
}

}  // namespace

std::size_t round_up(std::size_t bytes, std::size_t unit) {
  const std::size_t most = std::numeric_limits<std::size_t>::max() / unit * unit;
  if (bytes >= most) return most;
  return (bytes + unit - 1) / unit * unit;
}

std::size_t round_up_to_pages(std::size_t bytes) { return round_up(bytes, kPageBytes); }

void fail_with_limits(int error_number, const char* action, std::size_t region_bytes) {
  fail_errno(error_number, "cannot {} for {} symmetric bytes per rank{}; {}", action, region_bytes,
             describe_limits(), kAskForLess);
}

void require_file_size_allowed(std::size_t region_bytes) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
  if (region_bytes > limit.rlim_cur) fail_with_limits(EFBIG, "make a memory file", region_bytes);
}

AddressRange::AddressRange(int num_regions, std::size_t region_bytes)
    : stride_(round_up(region_bytes, kRegionAlignment)), region_bytes_(region_bytes) {
  const auto count = static_cast<std::size_t>(num_regions);
  const std::string action = fmt::format("reserve {} regions of address space", count);
  if (stride_ > kMostAddresses / count) fail_with_limits(ENOMEM, action.c_str(), region_bytes);
  total_bytes_ = stride_ * count;
  const std::size_t padded_bytes = total_bytes_ + kRegionAlignment;
  void* const start =
      ::mmap(nullptr, padded_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) fail_with_limits(errno, action.c_str(), region_bytes);

  const auto address = reinterpret_cast<std::uintptr_t>(start);
  const std::size_t before = round_up(address, kRegionAlignment) - address;
  base_ = static_cast<std::byte*>(start) + before;
  if (before > 0) ::munmap(start, before);
  ::munmap(base_ + total_bytes_, kRegionAlignment - before);
}

AddressRange::~AddressRange() { ::munmap(base_, total_bytes_); }

void AddressRange::map_file(Rank rank, int fd) { map(rank, MAP_SHARED | MAP_NORESERVE, fd); }

void AddressRange::map_anonymous(Rank rank) {
  map(rank, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
}

void AddressRange::map(Rank rank, int flags, int fd) {
  void* const mapped =
      ::mmap(region(rank), region_bytes_, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
  if (mapped == MAP_FAILED) {
    const int error_number = errno;
    fail_with_limits(error_number, fmt::format("map the region of rank {}", rank.value()).c_str(),
                     region_bytes_);
  }
  // Fewer page faults and TLB misses where the system allows it; nothing depends on it.
  ::madvise(mapped, region_bytes_, MADV_HUGEPAGE);
}

}  // namespace moelink
