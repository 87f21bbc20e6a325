// Maps and unmaps ring memory.
#include "proxy/ring_memory.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <utility>

#include "base/check.hpp"

namespace moelink {

RingMemory::RingMemory(std::size_t bytes) : bytes_(bytes) {
  void* const mapped =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) fail_errno(errno, "cannot map {} bytes for the proxy's rings", bytes);
  data_ = static_cast<std::byte*>(mapped);
}

RingMemory::RingMemory(RingMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

RingMemory& RingMemory::operator=(RingMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

RingMemory::~RingMemory() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

}  // namespace moelink
