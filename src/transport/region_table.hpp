// The memory that a transport moves bytes between: regions of this rank and of its peers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "moelink/types.hpp"
#include "protocol/arrival.hpp"
#include "protocol/wire_region.hpp"

namespace moelink {

using LocalRegion = Id<struct LocalRegionTag, std::uint16_t>;  // registered at this rank
using PeerRegion = Id<struct PeerRegionTag, std::uint16_t>;    // of a peer, imported here

// `bytes` of a local region into a peer's region.
struct Put {
  LocalRegion source;
  std::size_t source_offset = 0;
  PeerRegion target;
  std::size_t target_offset = 0;
  std::size_t bytes = 0;
  // If set, the peer counts the arrival once all bytes are there.
  std::optional<ArrivalKey> arrival = std::nullopt;
  // This is one of 2^log2_pieces pieces of a put.
  std::uint32_t log2_pieces = 0;
};

class RegionTable {
 public:
  struct Imported {
    Rank peer;
    WireRegion wire;
  };

  RegionTable(Rank rank, int num_ranks, int max_regions, std::uint32_t num_counters)
      : rank_(rank),
        num_ranks_(num_ranks),
        max_regions_(max_regions),
        num_counters_(num_counters) {}

  // Throws Error(kInvalidArgument) for no memory, Error(kSystem) if there are too many regions.
  LocalRegion add(std::span<std::byte> memory);
  void remove(LocalRegion region);
  PeerRegion import(Rank peer, const WireRegion& wire);

  std::span<std::byte> local(LocalRegion region) const;
  const Imported& peer(PeerRegion region) const;

  // Throws Error(kInvalidArgument) naming every value of the put that is out of range.
  void check(const Put& put) const;

 private:
  bool is_registered(LocalRegion region) const;

  Rank rank_;
  int num_ranks_;
  int max_regions_;
  std::uint32_t num_counters_;
  int num_registered_ = 0;
  std::vector<std::optional<std::span<std::byte>>> locals_;
  std::vector<Imported> imported_;
};

}  // namespace moelink
