// Departures of ranks that are threads of one process.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "symm/peer_watch.hpp"

namespace moelink {

// One flag per rank, which all ranks see.
class Departures {
 public:
  explicit Departures(int num_ranks) : flags_(static_cast<std::size_t>(num_ranks)) {}

  int num_ranks() const { return static_cast<int>(flags_.size()); }
  void note(Rank rank) { flags_[rank.index()].store(true, std::memory_order_release); }
  bool noted(Rank rank) const { return flags_[rank.index()].load(std::memory_order_acquire); }

 private:
  std::vector<std::atomic<bool>> flags_;
};

class ThreadWatch final : public PeerWatch {
 public:
  ThreadWatch(Rank rank, std::shared_ptr<Departures> departures)
      : rank_(rank), departures_(std::move(departures)) {}
  ~ThreadWatch() override { departures_->note(rank_); }
  ThreadWatch(const ThreadWatch&) = delete;
  ThreadWatch& operator=(const ThreadWatch&) = delete;

  bool alive(Rank peer) const override { return !departures_->noted(peer); }
  void announce_departure() override { departures_->note(rank_); }

 private:
  Rank rank_;
  std::shared_ptr<Departures> departures_;
};

}  // namespace moelink
