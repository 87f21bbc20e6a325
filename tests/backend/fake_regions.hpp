// Control areas of several ranks inside one process, whose ranks die on command.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

#include "backend/cpu/control_area.hpp"

namespace moelink::test {

// What the ranks share.
class FakeRegions {
 public:
  FakeRegions(int num_ranks, std::size_t bytes) : alive_(static_cast<std::size_t>(num_ranks)) {
    for (auto& alive : alive_) alive = true;
    for (int rank = 0; rank < num_ranks; ++rank) regions_.emplace_back(bytes / sizeof(Line) + 1);
  }

  int num_ranks() const { return static_cast<int>(regions_.size()); }
  std::byte* region(Rank rank) { return regions_[rank.index()].front().bytes; }
  bool alive(Rank rank) {
    ++num_looks_;
    return alive_[rank.index()];
  }
  void kill(Rank rank) { alive_[rank.index()] = false; }
  // How often somebody has asked whether a rank is alive.
  int num_looks() const { return num_looks_; }

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };

  std::vector<std::vector<Line>> regions_;
  std::vector<std::atomic<bool>> alive_;
  std::atomic<int> num_looks_{0};
};

// One rank's view of them.
class FakeRankMemory final : public SymmetricMemory {
 public:
  FakeRankMemory(Rank rank, std::shared_ptr<FakeRegions> regions)
      : rank_(rank), regions_(std::move(regions)) {}

  Rank rank() const override { return rank_; }
  int num_ranks() const override { return regions_->num_ranks(); }
  std::size_t size_bytes() const override { return 0; }
  std::byte* region(Rank rank) const override { return regions_->region(rank); }
  bool peer_alive(Rank rank) const override { return regions_->alive(rank); }
  void announce_departure() override { regions_->kill(rank_); }
  void discard(std::size_t, std::size_t) override {}
  const char* kind() const override { return "fake"; }

 private:
  Rank rank_;
  std::shared_ptr<FakeRegions> regions_;
};

struct FakeRanks {
  explicit FakeRanks(int num_ranks) {
    const ControlLayout layout{num_ranks, num_ranks};
    regions = std::make_shared<FakeRegions>(num_ranks, layout.total_bytes());
    for (Rank rank(0); rank.value() < num_ranks; rank = rank.next()) {
      areas.push_back(
          std::make_shared<ControlArea>(std::make_shared<FakeRankMemory>(rank, regions), layout));
    }
  }

  std::shared_ptr<FakeRegions> regions;
  std::vector<std::shared_ptr<ControlArea>> areas;  // by rank
};

}  // namespace moelink::test
