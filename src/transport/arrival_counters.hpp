// Counts what has arrived at this rank.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "protocol/arrival.hpp"

namespace moelink {

// Only grows. The thread that makes a transport progress counts; any thread may look. Whoever sees
// a count also sees the bytes of the puts that were counted.
class ArrivalCounters {
 public:
  explicit ArrivalCounters(const ArrivalLayout& layout)
      : layout_(layout), units_(layout.num_words()) {}

  const ArrivalLayout& layout() const { return layout_; }

  // False if the immediate names a counter that does not exist here; nothing is counted then.
  bool count(Immediate immediate) {
    if (!layout_.contains(immediate)) return false;
    units_[layout_.index(immediate)].fetch_add(immediate.units(), std::memory_order_release);
    return true;
  }

  // Whole puts of `source` in all epochs of the key's lane. A put in pieces counts when its last
  // piece is here, provided that no later put of the same counter is under way.
  std::uint64_t seen(const ArrivalKey& key, Rank source) const {
    const std::size_t index = layout_.index(Immediate::of(key, source));
    return units_[index].load(std::memory_order_acquire) / kUnitsPerPut;
  }

 private:
  ArrivalLayout layout_;
  std::vector<std::atomic<std::uint64_t>> units_;
};

}  // namespace moelink
