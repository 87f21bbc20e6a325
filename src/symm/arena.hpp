// Allocator of receive tensors inside the own region of a symmetric memory.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "symm/symmetric_memory.hpp"

namespace moelink {

inline constexpr std::size_t kArenaAlignment = 256;  // bytes, of every block's offset and size

// A part of the arena. Offsets count from the start of the region (not of the arena), so that a
// peer finds the block at region(rank) + offset.
struct ArenaSpan {
  std::size_t offset = 0;
  std::size_t bytes = 0;
};

struct ArenaStatistics {
  std::size_t live_bytes = 0;  // of blocks, slack included, without an open offer
  std::size_t peak_live_bytes = 0;
  // From the start of the arena to the end of the highest block ever held since the last discard.
  std::size_t high_water_bytes = 0;
  std::size_t capacity_bytes = 0;
};

// Size that is kept for a need of `bytes`: some headroom, then rounded up to an eighth of a power
// of two, so that needs which differ by a few percent fit into the holes that earlier ones left.
std::size_t arena_size_class(std::size_t bytes);

// Thread-safe. Blocks are handed out as shared_ptr<void> whose last copy gives the block back and
// which keep the memory mapped, so tensors may outlive the buffer.
class Arena : public std::enable_shared_from_this<Arena> {
 public:
  // Asked for the memory that new pages may take; see available_memory_bytes().
  using AvailableBytes = std::function<std::size_t()>;

  // Manages [begin, begin + capacity) of the own region, less what alignment cuts off.
  static std::shared_ptr<Arena> make(std::shared_ptr<SymmetricMemory> memory, std::size_t begin,
                                     std::size_t capacity,
                                     AvailableBytes available = default_available_bytes());

  // Two free places that peers may be offered before the needed size is known: `expected`, the
  // lowest one of at least `expected_bytes`, and `largest`, the one with most space (they may
  // coincide). Either is empty if there is no such place. Both are held until settle() or
  // abandon(); only one offer may be open. Places end where new pages would exceed the memory that
  // the machine has left.
  struct Offer {
    ArenaSpan expected;
    ArenaSpan largest;
  };
  Offer make_offer(std::size_t expected_bytes);

  // Which part of the offer serves `needed_bytes`: `expected` if it fits, else `largest`; empty
  // span if neither does. Pure: peers evaluate it as well.
  static ArenaSpan choose(const Offer& offer, std::size_t needed_bytes);

  // Ends the offer: keeps `parts` (consecutive from chosen.offset on, each a multiple of
  // kArenaAlignment, possibly 0), frees the rest. Returns one owner for each part, never null; a
  // part is given back when its owner goes. The last part that is not empty owns the slack.
  std::vector<std::shared_ptr<void>> settle(const ArenaSpan& chosen,
                                            std::span<const std::size_t> part_bytes);
  // Ends the offer, keeping nothing. Does nothing if none is open.
  void abandon();

  // A block for a tensor made by the user. Throws Error(kInvalidArgument) saying how much is needed
  // and free when nothing fits.
  std::shared_ptr<void> allocate(std::size_t bytes);

  // Whether [pointer, pointer + bytes) lies in one live block.
  bool contains(const void* pointer, std::size_t bytes) const;
  // Offset of `pointer` in the own region, which must hold it.
  std::size_t offset_of(const void* pointer) const;

  // Gives pages above the highest live block, or open offer, back to the system.
  void discard_unused();

  ArenaStatistics statistics() const;

 private:
  using SpanMap = std::map<std::size_t, std::size_t>;  // offset to bytes, not overlapping
  using Clock = std::chrono::steady_clock;

  Arena(std::shared_ptr<SymmetricMemory> memory, const ArenaSpan& whole, AvailableBytes available);
  static AvailableBytes default_available_bytes();

  // The mutex must be held for these.
  void refresh_page_limit(std::chrono::milliseconds most_age);
  std::size_t usable_bytes(std::size_t offset, std::size_t bytes) const;
  std::optional<ArenaSpan> first_fit(std::size_t needed_bytes) const;
  ArenaSpan largest_hole() const;
  void take(const ArenaSpan& span, SpanMap& holder);
  void give_back(SpanMap::node_type node);
  void close_offer();
  void note_live(const ArenaSpan& span);
  [[noreturn]] void fail_full(std::size_t bytes) const;

  // The mutex must not be held for these.
  std::shared_ptr<void> owner_of(const ArenaSpan& span);
  void release(std::size_t offset) noexcept;

  const std::shared_ptr<SymmetricMemory> memory_;
  const ArenaSpan whole_;
  const AvailableBytes available_;

  mutable std::mutex mutex_;
  SpanMap free_;  // neighbours are always merged
  SpanMap live_;
  SpanMap offered_;  // one or two spans while an offer is open
  bool offer_open_ = false;
  std::size_t live_bytes_ = 0;
  std::size_t peak_live_bytes_ = 0;
  std::size_t high_water_ = 0;  // end offset
  std::size_t page_limit_ = 0;  // end offset up to which pages are or may be touched
  std::optional<Clock::time_point> page_limit_time_;
};

}  // namespace moelink
