// Maps one memory file per rank, passed between processes over Unix sockets.
#include "symm/memfd/memfd_memory.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <optional>
#include <utility>
#include <vector>

#include "base/check.hpp"
#include "symm/address_range.hpp"
#include "symm/collective_step.hpp"
#include "symm/memfd/memory_file.hpp"
#include "symm/peer_meeting.hpp"

namespace moelink {
namespace {

class MemfdMemory final : public SymmetricMemory {
 public:
  MemfdMemory(Rank rank, std::unique_ptr<AddressRange> range, std::unique_ptr<PeerLinks> links,
              int num_ranks)
      : rank_(rank), num_ranks_(num_ranks), range_(std::move(range)), links_(std::move(links)) {}

  Rank rank() const override { return rank_; }
  int num_ranks() const override { return num_ranks_; }
  std::size_t size_bytes() const override { return range_->region_bytes(); }
  std::byte* region(Rank rank) const override { return range_->region(rank); }
  bool peer_alive(Rank rank) const override { return links_->alive(rank); }
  void announce_departure() override { links_->announce_departure(); }
  const char* kind() const override { return "memfd"; }

  void discard(std::size_t offset, std::size_t bytes) override {
    MOELINK_INVARIANT(offset % kPageBytes == 0 && bytes % kPageBytes == 0);
    if (bytes == 0) return;
    if (::madvise(local() + offset, bytes, MADV_REMOVE) != 0) {
      fail_errno(errno, "cannot give back {} bytes at offset {} of the region of rank {}", bytes,
                 offset, rank_.value());
    }
  }

 private:
  Rank rank_;
  int num_ranks_;
  std::unique_ptr<AddressRange> range_;
  std::unique_ptr<PeerLinks> links_;
};

// What a rank can prepare, and find impossible, without the others.
struct OwnPart {
  OwnPart(Bootstrap& bootstrap, std::size_t bytes)
      : range(std::make_unique<AddressRange>(bootstrap.num_ranks(), bytes)),
        file(make_memory_file(bytes)),
        meeting(bootstrap.num_ranks()) {
    range->map_file(bootstrap.rank(), file.get());
  }

  std::unique_ptr<AddressRange> range;
  UniqueFd file;
  PeerMeeting meeting;
};

void map_peers(OwnPart& own, PeerLinks& links, const Deadline& deadline) {
  const std::vector<UniqueFd> files = links.exchange_descriptors(own.file.get(), deadline);
  for (std::size_t peer = 0; peer < files.size(); ++peer) {
    if (!files[peer].valid()) continue;
    require_memory_file(files[peer].get(), own.range->region_bytes());
    own.range->map_file(Rank(static_cast<std::int32_t>(peer)), files[peer].get());
  }
}

}  // namespace

std::shared_ptr<SymmetricMemory> open_memfd_memory(Bootstrap& bootstrap, std::size_t size_bytes,
                                                   const Deadline& deadline) {
  std::optional<OwnPart> own;
  const std::vector<std::string> tickets =
      collective_step(bootstrap, "making symmetric memory", deadline, [&] {
        own.emplace(bootstrap, round_up_to_pages(size_bytes));
        return own->meeting.ticket();
      });

  std::unique_ptr<PeerLinks> links;
  collective_step(bootstrap, "mapping symmetric memory", deadline, [&] {
    links = own->meeting.link_up(bootstrap.rank(), tickets, deadline);
    map_peers(*own, *links, deadline);
    return std::string();
  });
  links->watch_processes();
  return std::make_shared<MemfdMemory>(bootstrap.rank(), std::move(own->range), std::move(links),
                                       bootstrap.num_ranks());
}

}  // namespace moelink
