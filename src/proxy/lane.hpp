// The two ends of one lane of commands.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "protocol/proxy_command.hpp"

namespace moelink {

// Where a lane lies. The memory may be shared with a GPU or with other processes.
class LaneView {
 public:
  LaneView(std::byte* rings, const RingLayout& layout, std::uint32_t lane)
      : rings_(rings), layout_(layout), lane_(lane) {}

  const RingLayout& layout() const { return layout_; }
  std::uint32_t lane() const { return lane_; }
  LaneProgress& progress() const {
    return *reinterpret_cast<LaneProgress*>(rings_ + layout_.progress_offset(lane_));
  }
  ProxyCommand& slot(std::uint64_t position) const {
    return *reinterpret_cast<ProxyCommand*>(rings_ + layout_.slot_offset(lane_, position));
  }

 private:
  std::byte* rings_;
  RingLayout layout_;
  std::uint32_t lane_;
};

// The producer's end, used by one thread at a time.
class LaneWriter {
 public:
  explicit LaneWriter(const LaneView& view) : view_(view) {}

  // False if the lane is full. Everything written before is published with the command.
  bool try_push(const ProxyCommand& command);
  std::uint64_t num_pushed() const { return num_pushed_; }
  // Source ranges of commands below this may be reused.
  std::uint64_t num_completed() const {
    return std::atomic_ref(view_.progress().num_completed).load(std::memory_order_acquire);
  }

 private:
  LaneView view_;
  std::uint64_t num_pushed_ = 0;
  std::uint64_t num_taken_ = 0;  // as last seen
};

// The proxy's end.
class LaneReader {
 public:
  explicit LaneReader(const LaneView& view) : view_(view) {}

  std::uint32_t lane() const { return view_.lane(); }
  std::uint64_t num_taken() const { return num_taken_; }
  // The next command, or null. Valid until pop().
  const ProxyCommand* front() const;
  void pop();  // the slot may be written again
  void publish_completed(std::uint64_t num_completed);
  void publish_failure();

 private:
  LaneView view_;
  std::uint64_t num_taken_ = 0;
};

}  // namespace moelink
