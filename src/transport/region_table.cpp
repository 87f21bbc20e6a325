// Keeps track of regions and checks puts against them.
#include "transport/region_table.hpp"

#include <algorithm>
#include <limits>

#include "base/check.hpp"

namespace moelink {

namespace {

constexpr std::size_t kMaxImported = std::numeric_limits<std::uint16_t>::max();

bool fits(std::size_t offset, std::size_t bytes, std::size_t size) {
  return offset <= size && bytes <= size - offset;
}

}  // namespace

LocalRegion RegionTable::add(std::span<std::byte> memory) {
  if (memory.empty()) {
    fail(ErrorCode::kInvalidArgument,
         "register_region (rank {}): memory has 0 bytes, expected at least 1", rank_.value());
  }
  if (num_registered_ >= max_regions_) {
    fail(ErrorCode::kSystem,
         "register_region (rank {}): {} regions are registered already, at most max_regions = {} "
         "may be; deregister one or raise the limit",
         rank_.value(), num_registered_, max_regions_);
  }
  const auto free = std::find(locals_.begin(), locals_.end(), std::nullopt);
  const auto index = static_cast<std::size_t>(free - locals_.begin());
  if (free == locals_.end()) locals_.emplace_back();
  locals_[index] = memory;
  ++num_registered_;
  return LocalRegion(static_cast<std::uint16_t>(index));
}

void RegionTable::remove(LocalRegion region) {
  local(region);
  locals_[region.index()].reset();
  --num_registered_;
}

PeerRegion RegionTable::import(Rank peer, const WireRegion& wire) {
  Violations violations("import_region", rank_);
  violations.require(peer.value() >= 0 && peer.value() < num_ranks_, "peer is {}, expected 0 to {}",
                     peer.value(), num_ranks_ - 1);
  violations.require(wire.bytes > 0, "the region of rank {} has 0 bytes", peer.value());
  violations.require(imported_.size() < kMaxImported, "{} regions are imported already",
                     imported_.size());
  violations.throw_if_any();
  imported_.push_back({peer, wire});
  return PeerRegion(static_cast<std::uint16_t>(imported_.size() - 1));
}

bool RegionTable::is_registered(LocalRegion region) const {
  return region.index() < locals_.size() && locals_[region.index()].has_value();
}

std::span<std::byte> RegionTable::local(LocalRegion region) const {
  if (!is_registered(region)) {
    fail(ErrorCode::kInvalidArgument, "rank {}: region {} is not registered", rank_.value(),
         region.value());
  }
  return *locals_[region.index()];
}

const RegionTable::Imported& RegionTable::peer(PeerRegion region) const {
  if (region.index() >= imported_.size()) {
    fail(ErrorCode::kInvalidArgument, "rank {}: peer region {} is not imported, {} are",
         rank_.value(), region.value(), imported_.size());
  }
  return imported_[region.index()];
}

void RegionTable::check(const Put& put) const {
  const std::span<std::byte> source = local(put.source);
  const Imported& target = peer(put.target);
  Violations violations("put", rank_);
  violations.require(fits(put.source_offset, put.bytes, source.size()),
                     "source bytes {} to {} are outside region {} of {} bytes", put.source_offset,
                     put.source_offset + put.bytes, put.source.value(), source.size());
  violations.require(fits(put.target_offset, put.bytes, target.wire.bytes),
                     "target bytes {} to {} are outside the region of {} bytes of rank {}",
                     put.target_offset, put.target_offset + put.bytes, target.wire.bytes,
                     target.peer.value());
  if (put.arrival) {
    violations.require(put.arrival->counter < num_counters_,
                       "counter is {}, expected less than num_counters = {}", put.arrival->counter,
                       num_counters_);
  }
  violations.require(put.log2_pieces <= kMaxLog2Pieces, "log2_pieces is {}, expected at most {}",
                     put.log2_pieces, kMaxLog2Pieces);
  violations.throw_if_any();
}

}  // namespace moelink
