// Anonymous mappings.
#include "network/message_memory.hpp"

#include <sys/mman.h>

#include <cerrno>

#include "base/check.hpp"

namespace moelink {

MessageMemory::MessageMemory(std::size_t bytes) {
  void* const address =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) fail_errno(errno, "cannot map {} bytes for messages", bytes);
  ::madvise(address, bytes,
            MADV_DONTFORK);  // a child must not break what a network card has pinned
  bytes_ = {static_cast<std::byte*>(address), bytes};
}

MessageMemory::~MessageMemory() { ::munmap(bytes_.data(), bytes_.size()); }

}  // namespace moelink
