// First-fit allocation with offers of room whose needed size becomes known later.
#include "symm/arena.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <iterator>
#include <limits>
#include <numeric>
#include <utility>

#include "base/check.hpp"
#include "protocol/offer.hpp"
#include "symm/address_range.hpp"

namespace moelink {
namespace {

// Needs of one training step differ from the last one's by a few percent; with this headroom a hole
// left by any of them fits the others, and the arena does not creep upwards.
constexpr std::size_t kHeadroomDivisor = 16;
constexpr std::size_t kClassesPerPowerOfTwo = 16;

// Reading the system's figures takes about as long as a small dispatch.
constexpr std::chrono::milliseconds kMostPageLimitAge{250};
constexpr std::chrono::milliseconds kNow{0};

constexpr std::size_t align_down(std::size_t value) {
  return value / kArenaAlignment * kArenaAlignment;
}

constexpr std::size_t align_up(std::size_t value) {
  return align_down(value + kArenaAlignment - 1);
}

std::size_t saturating_add(std::size_t a, std::size_t b) {
  const std::size_t most = std::numeric_limits<std::size_t>::max();
  return a > most - b ? most : a + b;
}

ArenaSpan aligned_part(std::size_t begin, std::size_t capacity) {
  const std::size_t start = align_up(begin);
  const std::size_t end = align_down(begin + capacity);
  return ArenaSpan{start, end > start ? end - start : 0};
}

std::uintptr_t address_of(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

}  // namespace

std::size_t arena_size_class(std::size_t bytes) {
  if (bytes == 0) return 0;
  if (bytes > std::numeric_limits<std::size_t>::max() / 4) return align_down(bytes);
  const std::size_t wanted = bytes + bytes / kHeadroomDivisor;
  const std::size_t step =
      std::max(std::bit_floor(wanted) / kClassesPerPowerOfTwo, kArenaAlignment);
  return (wanted + step - 1) / step * step;
}

std::shared_ptr<Arena> Arena::make(std::shared_ptr<SymmetricMemory> memory, std::size_t begin,
                                   std::size_t capacity, AvailableBytes available) {
  MOELINK_INVARIANT(begin <= memory->size_bytes() && capacity <= memory->size_bytes() - begin);
  return std::shared_ptr<Arena>(
      new Arena(std::move(memory), aligned_part(begin, capacity), std::move(available)));
}

Arena::AvailableBytes Arena::default_available_bytes() {
  return [] { return available_memory_bytes(); };
}

Arena::Arena(std::shared_ptr<SymmetricMemory> memory, const ArenaSpan& whole,
             AvailableBytes available)
    : memory_(std::move(memory)),
      whole_(whole),
      available_(std::move(available)),
      high_water_(whole.offset) {
  if (whole_.bytes > 0) free_.emplace(whole_.offset, whole_.bytes);
}

Arena::Offer Arena::make_offer(std::size_t expected_bytes) {
  const std::lock_guard lock(mutex_);
  MOELINK_INVARIANT(!offer_open_);
  refresh_page_limit(kMostPageLimitAge);
  Offer offer;
  if (const std::optional<ArenaSpan> place = first_fit(expected_bytes)) {
    offer.expected = {place->offset, std::min(place->bytes, arena_size_class(expected_bytes))};
  }
  offer.largest = largest_hole();

  if (offer.expected.bytes > 0 && offer.expected.offset != offer.largest.offset) {
    take(offer.expected, offered_);
  }
  if (offer.largest.bytes > 0) take(offer.largest, offered_);
  offer_open_ = true;
  return offer;
}

ArenaSpan Arena::choose(const Offer& offer, std::size_t needed_bytes) {
  const WireSpan place = choose_place({offer.expected.offset, offer.expected.bytes},
                                      {offer.largest.offset, offer.largest.bytes}, needed_bytes);
  return ArenaSpan{place.offset, place.bytes};
}

std::vector<std::shared_ptr<void>> Arena::settle(const ArenaSpan& chosen,
                                                 std::span<const std::size_t> part_bytes) {
  const std::size_t needed = std::reduce(part_bytes.begin(), part_bytes.end());
  MOELINK_INVARIANT(needed <= chosen.bytes);
  const std::size_t slack = std::min(arena_size_class(needed), chosen.bytes) - needed;
  const auto last = std::find_if(part_bytes.rbegin(), part_bytes.rend(),
                                 [](std::size_t bytes) { return bytes > 0; });
  // One past the part that owns the slack.
  const auto slack_end = static_cast<std::size_t>(std::distance(last, part_bytes.rend()));

  std::vector<ArenaSpan> parts;
  std::size_t offset = chosen.offset;
  for (std::size_t i = 0; i < part_bytes.size(); ++i) {
    MOELINK_INVARIANT(part_bytes[i] % kArenaAlignment == 0);
    parts.push_back({offset, part_bytes[i] + (i + 1 == slack_end ? slack : 0)});
    offset += part_bytes[i];
  }
  {
    const std::lock_guard lock(mutex_);
    MOELINK_INVARIANT(offer_open_);
    close_offer();
    for (const ArenaSpan& part : parts) {
      if (part.bytes > 0) take(part, live_);
    }
  }
  std::vector<std::shared_ptr<void>> owners;
  owners.reserve(parts.size());
  for (const ArenaSpan& part : parts) owners.push_back(owner_of(part));
  return owners;
}

void Arena::abandon() {
  const std::lock_guard lock(mutex_);
  close_offer();
}

std::shared_ptr<void> Arena::allocate(std::size_t bytes) {
  if (bytes == 0) return owner_of({whole_.offset, 0});
  ArenaSpan block;
  {
    const std::lock_guard lock(mutex_);
    refresh_page_limit(kMostPageLimitAge);
    std::optional<ArenaSpan> place = first_fit(bytes);
    if (!place) {
      refresh_page_limit(kNow);
      place = first_fit(bytes);
    }
    if (!place) fail_full(bytes);
    block = {place->offset, std::min(place->bytes, arena_size_class(bytes))};
    take(block, live_);
  }
  return owner_of(block);
}

bool Arena::contains(const void* pointer, std::size_t bytes) const {
  const std::uintptr_t start = address_of(memory_->local());
  const std::uintptr_t address = address_of(pointer);
  if (address < start) return false;
  const std::size_t offset = address - start;
  const std::lock_guard lock(mutex_);
  auto block = live_.upper_bound(offset);
  if (block == live_.begin()) return false;
  --block;
  const std::size_t inside = offset - block->first;
  return inside <= block->second && bytes <= block->second - inside;
}

std::size_t Arena::offset_of(const void* pointer) const {
  const std::uintptr_t start = address_of(memory_->local());
  const std::uintptr_t address = address_of(pointer);
  MOELINK_INVARIANT(address >= start && address - start <= memory_->size_bytes());
  return address - start;
}

void Arena::discard_unused() {
  const std::lock_guard lock(mutex_);
  const std::size_t arena_end = whole_.offset + whole_.bytes;
  if (free_.empty()) return;
  const auto [offset, bytes] = *free_.rbegin();
  if (offset + bytes != arena_end) return;
  const std::size_t first_page = round_up_to_pages(offset);
  const std::size_t last_page = arena_end / kPageBytes * kPageBytes;
  if (first_page < last_page) memory_->discard(first_page, last_page - first_page);
  high_water_ = std::min(high_water_, offset);
  page_limit_time_.reset();
}

ArenaStatistics Arena::statistics() const {
  const std::lock_guard lock(mutex_);
  return ArenaStatistics{.live_bytes = live_bytes_,
                         .peak_live_bytes = peak_live_bytes_,
                         .high_water_bytes = high_water_ - whole_.offset,
                         .capacity_bytes = whole_.bytes};
}

// Pages below the high-water mark are taken to be in use already, the others to be new.
void Arena::refresh_page_limit(std::chrono::milliseconds most_age) {
  const Clock::time_point now = Clock::now();
  if (page_limit_time_ && now - *page_limit_time_ < most_age) return;
  page_limit_ = saturating_add(high_water_, available_());
  page_limit_time_ = now;
}

std::size_t Arena::usable_bytes(std::size_t offset, std::size_t bytes) const {
  const std::size_t end = std::min(offset + bytes, align_down(page_limit_));
  return end > offset ? end - offset : 0;
}

std::optional<ArenaSpan> Arena::first_fit(std::size_t needed_bytes) const {
  if (needed_bytes > whole_.bytes) return std::nullopt;
  const std::size_t least = align_up(needed_bytes);
  for (const auto& [offset, bytes] : free_) {
    const std::size_t usable = usable_bytes(offset, bytes);
    if (usable >= least) return ArenaSpan{offset, usable};
  }
  return std::nullopt;
}

ArenaSpan Arena::largest_hole() const {
  ArenaSpan largest;
  for (const auto& [offset, bytes] : free_) {
    const std::size_t usable = usable_bytes(offset, bytes);
    if (usable > largest.bytes) largest = {offset, usable};
  }
  return largest;
}

// Moves `span`, which must lie in one hole, from the free list to `holder`.
void Arena::take(const ArenaSpan& span, SpanMap& holder) {
  auto hole = free_.upper_bound(span.offset);
  MOELINK_INVARIANT(hole != free_.begin());
  --hole;
  const std::size_t hole_end = hole->first + hole->second;
  const std::size_t span_end = span.offset + span.bytes;
  MOELINK_INVARIANT(span_end <= hole_end);
  holder.emplace(span.offset, span.bytes);
  if (span_end < hole_end) free_.emplace_hint(std::next(hole), span_end, hole_end - span_end);
  if (hole->first < span.offset) {
    hole->second = span.offset - hole->first;
  } else {
    free_.erase(hole);
  }
  if (&holder == &live_) note_live(span);
}

void Arena::note_live(const ArenaSpan& span) {
  live_bytes_ += span.bytes;
  peak_live_bytes_ = std::max(peak_live_bytes_, live_bytes_);
  high_water_ = std::max(high_water_, span.offset + span.bytes);
}

// Reuses the node, so that giving back never needs memory and never fails.
void Arena::give_back(SpanMap::node_type node) {
  const auto next = free_.upper_bound(node.key());
  if (next != free_.end() && node.key() + node.mapped() == next->first) {
    node.mapped() += next->second;
    free_.erase(next);
  }
  const auto after = free_.upper_bound(node.key());
  if (after != free_.begin()) {
    const auto previous = std::prev(after);
    if (previous->first + previous->second == node.key()) {
      previous->second += node.mapped();
      return;
    }
  }
  free_.insert(after, std::move(node));
}

void Arena::close_offer() {
  while (!offered_.empty()) give_back(offered_.extract(offered_.begin()));
  offer_open_ = false;
}

void Arena::fail_full(std::size_t bytes) const {
  fail(ErrorCode::kInvalidArgument,
       "symmetric memory of rank {}: {} bytes are needed, but the largest free place has {} ({} of "
       "{} bytes are held by tensors{}); release tensors or raise max_symmetric_bytes or "
       "MOELINK_MAX_SYMMETRIC_BYTES",
       memory_->rank().value(), bytes, largest_hole().bytes, live_bytes_, whole_.bytes,
       offer_open_ ? ", more by a dispatch that is under way" : "");
}

std::shared_ptr<void> Arena::owner_of(const ArenaSpan& span) {
  void* const start = memory_->local() + span.offset;
  std::shared_ptr<Arena> self = shared_from_this();
  if (span.bytes == 0) return std::shared_ptr<void>(std::move(self), start);
  return std::shared_ptr<void>(
      start, [self = std::move(self), offset = span.offset](void*) { self->release(offset); });
}

void Arena::release(std::size_t offset) noexcept {
  const std::lock_guard lock(mutex_);
  SpanMap::node_type node = live_.extract(offset);
  MOELINK_INVARIANT(!node.empty());
  live_bytes_ -= node.mapped();
  give_back(std::move(node));
}

}  // namespace moelink
