// Memory for messages: pages of this process alone, registered with a transport.
#pragma once

#include <cstddef>
#include <span>

namespace moelink {

// Zero-filled, aligned to pages; costs memory once it is touched, or registered where a network
// pins it. Throws Error(kSystem) when it cannot be had.
class MessageMemory {
 public:
  explicit MessageMemory(std::size_t bytes);
  ~MessageMemory();
  MessageMemory(const MessageMemory&) = delete;
  MessageMemory& operator=(const MessageMemory&) = delete;

  std::span<std::byte> bytes() const { return bytes_; }
  std::byte* at(std::size_t offset) const { return bytes_.data() + offset; }

 private:
  std::span<std::byte> bytes_;
};

}  // namespace moelink
