// Makes one range of addresses that all ranks of the process share.
#include "symm/inproc/inproc_memory.hpp"

#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "base/check.hpp"
#include "symm/address_range.hpp"
#include "symm/collective_step.hpp"
#include "symm/random_token.hpp"

namespace moelink {
namespace {

// What the ranks have in common; lives as long as any of them holds it.
struct SharedRegions {
  SharedRegions(int num_ranks, std::size_t bytes)
      : range(num_ranks, bytes), departed(static_cast<std::size_t>(num_ranks)) {
    for (int rank = 0; rank < num_ranks; ++rank) range.map_anonymous(Rank(rank));
  }

  AddressRange range;
  std::vector<std::atomic<bool>> departed;
};

class InprocMemory final : public SymmetricMemory {
 public:
  InprocMemory(Rank rank, std::shared_ptr<SharedRegions> shared)
      : rank_(rank), shared_(std::move(shared)) {}
  ~InprocMemory() override { InprocMemory::announce_departure(); }

  Rank rank() const override { return rank_; }
  int num_ranks() const override { return static_cast<int>(shared_->departed.size()); }
  std::size_t size_bytes() const override { return shared_->range.region_bytes(); }
  std::byte* region(Rank rank) const override { return shared_->range.region(rank); }
  bool peer_alive(Rank rank) const override {
    return !shared_->departed[rank.index()].load(std::memory_order_acquire);
  }
  void announce_departure() override {
    shared_->departed[rank_.index()].store(true, std::memory_order_release);
  }
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
};

// Where rank 0 leaves the regions for the other ranks, under a token that only they are told.
class Registry {
 public:
  static Registry& of_process() {
    static Registry registry;
    return registry;
  }

  void put(const RandomToken& token, std::shared_ptr<SharedRegions> regions) {
    const std::lock_guard lock(mutex_);
    entries_.emplace(token, std::move(regions));
  }

  std::shared_ptr<SharedRegions> find(const RandomToken& token) {
    const std::lock_guard lock(mutex_);
    const auto entry = entries_.find(token);
    return entry == entries_.end() ? nullptr : entry->second;
  }

  void remove(const RandomToken& token) {
    const std::lock_guard lock(mutex_);
    entries_.erase(token);
  }

 private:
  std::mutex mutex_;
  std::map<RandomToken, std::shared_ptr<SharedRegions>> entries_;
};

// Keeps the regions registered until all ranks have found them, or the attempt has failed.
class Registration {
 public:
  explicit Registration(std::shared_ptr<SharedRegions> regions) {
    Registry::of_process().put(token_, std::move(regions));
  }
  ~Registration() { Registry::of_process().remove(token_); }
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;

  const RandomToken& token() const { return token_; }

 private:
  RandomToken token_ = RandomToken::make();
};

}  // namespace

std::shared_ptr<SymmetricMemory> open_inproc_memory(Bootstrap& bootstrap, std::size_t size_bytes,
                                                    const Deadline& deadline) {
  std::unique_ptr<Registration> registration;
  const std::vector<std::string> blobs =
      collective_step(bootstrap, "making symmetric memory", deadline, [&] {
        if (bootstrap.rank() != Rank(0)) return std::string();
        registration = std::make_unique<Registration>(
            std::make_shared<SharedRegions>(bootstrap.num_ranks(), round_up_to_pages(size_bytes)));
        return std::string(registration->token().view());
      });

  std::shared_ptr<SharedRegions> regions;
  collective_step(bootstrap, "mapping symmetric memory", deadline, [&] {
    regions = Registry::of_process().find(RandomToken::decode(blobs.front()));
    if (!regions) {
      fail(ErrorCode::kInternal, "the regions that rank 0 registered are not in this process");
    }
    return std::string();
  });
  return std::make_shared<InprocMemory>(bootstrap.rank(), std::move(regions));
}

}  // namespace moelink
