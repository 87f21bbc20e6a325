// Memory for rings that processes forked later share.
#pragma once

#include <cstddef>

namespace moelink {

// Zero-filled, as fresh rings must be; aligned to pages.
class RingMemory {
 public:
  RingMemory() = default;
  // Throws Error(kSystem).
  explicit RingMemory(std::size_t bytes);
  RingMemory(RingMemory&& other) noexcept;
  RingMemory& operator=(RingMemory&& other) noexcept;
  ~RingMemory();

  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace moelink
