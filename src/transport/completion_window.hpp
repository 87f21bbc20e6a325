// Which accepted puts are not complete yet, and up to where all are.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

#include "moelink/types.hpp"

namespace moelink {

// Puts are numbered from 1 in the order in which they were accepted and complete in any order.
class CompletionWindow {
 public:
  // Returns the put's number. It is complete after so many calls of complete(); 0: already now.
  std::uint64_t open(Rank peer, std::uint32_t num_parts) {
    entries_.push_back({peer, num_parts});
    if (num_parts == 0) drop_complete();
    return num_opened_ += 1;
  }

  void complete(std::uint64_t number) {
    --entries_[static_cast<std::size_t>(number - completed_through_ - 1)].num_parts_left;
    drop_complete();
  }

  std::uint64_t num_opened() const { return num_opened_; }
  std::uint64_t completed_through() const { return completed_through_; }
  bool empty() const { return entries_.empty(); }
  std::size_t size() const { return entries_.size(); }
  // Where the oldest put goes that is not complete.
  std::optional<Rank> oldest_peer() const {
    return entries_.empty() ? std::nullopt : std::optional(entries_.front().peer);
  }

 private:
  struct Entry {
    Rank peer;
    std::uint32_t num_parts_left = 0;
  };

  void drop_complete() {
    while (!entries_.empty() && entries_.front().num_parts_left == 0) {
      entries_.pop_front();
      ++completed_through_;
    }
  }

  std::deque<Entry> entries_;
  std::uint64_t num_opened_ = 0;
  std::uint64_t completed_through_ = 0;
};

}  // namespace moelink
