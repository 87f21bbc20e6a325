// A list of what has been given back, by capture and size.
#include "backend/capture_pool.hpp"

#include <algorithm>
#include <utility>

namespace moelink {

std::shared_ptr<void> CapturePool::allocate(Arena& arena, std::uint64_t id, std::size_t bytes) {
  std::shared_ptr<void> block = take(id, bytes);
  if (!block) block = arena.allocate(bytes);
  void* const address = block.get();
  return {address, [pool = weak_from_this(), id, bytes, block = std::move(block)](void*) mutable {
            if (const auto alive = pool.lock()) alive->give_back({id, bytes, std::move(block)});
          }};
}

std::shared_ptr<void> CapturePool::take(std::uint64_t id, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find_if(
      free_, [&](const Free& one) { return one.id == id && one.bytes == bytes; });
  if (found == free_.end()) return nullptr;
  std::shared_ptr<void> block = std::move(found->block);
  free_.erase(found);
  return block;
}

void CapturePool::give_back(Free block) {
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(block));
}

void CapturePool::retain(std::shared_ptr<void> block) {
  const std::lock_guard lock(mutex_);
  retained_.push_back(std::move(block));
}

}  // namespace moelink
