// Where peers of the same process leave what they put to a rank.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>

#include "protocol/arrival.hpp"

namespace moelink {

// Thread-safe.
class LoopbackInbox {
 public:
  enum class Outcome : std::uint8_t { kDone, kFull, kClosed, kNoRegion };

  struct Delivery {
    std::uint64_t key = 0;  // of the region, as open_region gave it
    std::size_t offset = 0;
    std::span<const std::byte> bytes;
    std::optional<Immediate> arrival;
  };

  explicit LoopbackInbox(std::size_t capacity) : capacity_(capacity) {}

  std::uint64_t open_region(std::span<std::byte> memory);
  void close_region(std::uint64_t key);
  // Copies the bytes and queues the arrival, or does nothing at all.
  Outcome deliver(const Delivery& delivery);
  std::deque<Immediate> take_arrivals();
  void close();  // nothing is delivered afterwards
  bool is_open() const;

 private:
  mutable std::mutex mutex_;
  std::size_t capacity_;  // arrivals that may wait to be counted
  bool open_ = true;
  std::uint64_t last_key_ = 0;
  std::unordered_map<std::uint64_t, std::span<std::byte>> regions_;
  std::deque<Immediate> arrivals_;
};

// A ticket by which other threads of this process, and only they, find the inbox.
std::string publish_inbox(const std::shared_ptr<LoopbackInbox>& inbox);
// Null if the ticket comes from another process or its inbox is no more.
std::shared_ptr<LoopbackInbox> find_inbox(const std::string& ticket);

}  // namespace moelink
