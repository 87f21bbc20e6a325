// Makes one range of addresses that all ranks of the process share.
#include "symm/inproc/inproc_memory.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <utility>

#include "base/check.hpp"
#include "symm/address_range.hpp"
#include "symm/process_registry.hpp"
#include "symm/thread_watch.hpp"

namespace moelink {
namespace {

// What the ranks have in common; lives as long as any of them holds it.
struct SharedRegions {
  SharedRegions(int num_ranks, std::size_t bytes)
      : range(num_ranks, bytes), departures(std::make_shared<Departures>(num_ranks)) {
    for (int rank = 0; rank < num_ranks; ++rank) range.map_anonymous(Rank(rank));
  }

  AddressRange range;
  std::shared_ptr<Departures> departures;
};

class InprocMemory final : public SymmetricMemory {
 public:
  InprocMemory(Rank rank, std::shared_ptr<SharedRegions> shared)
      : rank_(rank), shared_(std::move(shared)), watch_(rank, shared_->departures) {}

  Rank rank() const override { return rank_; }
  int num_ranks() const override { return shared_->departures->num_ranks(); }
  std::size_t size_bytes() const override { return shared_->range.region_bytes(); }
  std::byte* region(Rank rank) const override { return shared_->range.region(rank); }
  bool peer_alive(Rank rank) const override { return watch_.alive(rank); }
  void announce_departure() override { watch_.announce_departure(); }
  const char* kind() const override { return "inproc"; }

  void discard(std::size_t offset, std::size_t bytes) override {
    MOELINK_INVARIANT(offset % kPageBytes == 0 && bytes % kPageBytes == 0);
    if (bytes == 0) return;
    if (::madvise(local() + offset, bytes, MADV_DONTNEED) != 0) {
      fail_errno(errno, "cannot give back {} bytes at offset {} of the region of rank {}", bytes,
                 offset, rank_.value());
    }
  }

 private:
  Rank rank_;
  std::shared_ptr<SharedRegions> shared_;
  ThreadWatch watch_;
};

}  // namespace

std::shared_ptr<SymmetricMemory> open_inproc_memory(Bootstrap& bootstrap, std::size_t size_bytes,
                                                    const Deadline& deadline) {
  auto regions = share_in_process<SharedRegions>(bootstrap, deadline, [&] {
    return std::make_shared<SharedRegions>(bootstrap.num_ranks(), round_up_to_pages(size_bytes));
  });
  return std::make_shared<InprocMemory>(bootstrap.rank(), std::move(regions));
}

}  // namespace moelink
