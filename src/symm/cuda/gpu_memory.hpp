// Symmetric memory for GPUs, of whichever kind made the regions.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "base/check.hpp"
#include "symm/address_range.hpp"
#include "symm/host_identity.hpp"
#include "symm/peer_watch.hpp"
#include "symm/symmetric_memory.hpp"

namespace moelink {

// What all ranks have agreed on before a kind makes regions. The rank's device is current then.
struct GpuPlan {
  std::size_t bytes = 0;  // of each region, as large as the GPUs' granularity wants it
  HostPlacement placement = HostPlacement::kOneHost;
  std::vector<int> devices;  // of each rank, as its own process numbers them
};

class GpuMemory final : public SymmetricMemory {
 public:
  struct Parts {
    const char* kind = "";
    Rank rank;
    std::size_t bytes = 0;
    std::vector<std::byte*> regions;
    std::shared_ptr<const void> owner;  // keeps the regions mapped
    std::unique_ptr<PeerWatch> watch;   // goes first, so that peers learn of it at once
  };

  explicit GpuMemory(Parts parts) : parts_(std::move(parts)) {}

  Rank rank() const override { return parts_.rank; }
  int num_ranks() const override { return static_cast<int>(parts_.regions.size()); }
  std::size_t size_bytes() const override { return parts_.bytes; }
  std::byte* region(Rank rank) const override { return parts_.regions[rank.index()]; }
  bool peer_alive(Rank rank) const override { return parts_.watch->alive(rank); }
  void announce_departure() override { parts_.watch->announce_departure(); }
  const char* kind() const override { return parts_.kind; }

  // Nothing to give back: all of a region is memory from the start and cannot leave it piecemeal.
  void discard(std::size_t offset, std::size_t bytes) override {
    MOELINK_INVARIANT(offset % kPageBytes == 0 && bytes % kPageBytes == 0);
  }

 private:
  Parts parts_;
};

}  // namespace moelink
