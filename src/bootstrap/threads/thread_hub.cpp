// All-gather among threads.
#include "bootstrap/threads/thread_hub.hpp"

#include <utility>

#include "base/check.hpp"

namespace moelink {

namespace {

// Longest sleep between two looks at the deadline.
constexpr std::chrono::seconds kMaxSleep{1};

}  // namespace

ThreadHub::ThreadHub(int num_ranks) : members_(static_cast<std::size_t>(num_ranks)) {}

std::vector<std::string> ThreadHub::all_gather(Rank rank, const std::string& blob, const char* what,
                                               const Deadline& deadline) {
  std::unique_lock lock(mutex_);
  if (failure_) throw_earlier_failure(rank, what, *failure_);
  const std::uint64_t mine = num_completed_ + 1;
  deposit(rank, blob, what);
  while (num_completed_ < mine) {
    if (const auto departed = departed_rank(); departed && !failure_) {
      set_failure(lost_rank_failure(what, *departed, "its group was destroyed"));
    }
    if (!failure_ && deadline.expired()) {
      set_failure(missing_ranks_failure(what, missing_ranks(), deadline.span()));
    }
    if (failure_) throw_failure(rank, *failure_);
    changed_.wait_for(lock, deadline.remaining(kMaxSleep));
  }
  const std::shared_ptr<const Blobs> gathered = gathered_;
  lock.unlock();
  return *gathered;
}

void ThreadHub::depart(Rank rank) {
  const std::lock_guard lock(mutex_);
  members_[rank.index()].present = false;
  changed_.notify_all();
}

void ThreadHub::deposit(Rank rank, const std::string& blob, const char* what) {
  Member& member = members_[rank.index()];
  if (member.arrived) {
    fail(ErrorCode::kInvalidArgument,
         "rank {}: {}: this rank is already inside '{}' on another thread", rank.value(), what,
         first_what_);
  }
  if (num_arrived_ == 0) {
    first_rank_ = rank;
    first_what_ = what;
  } else if (first_what_ != what) {
    set_failure(mismatch_failure(first_rank_, first_what_, rank, what));
    throw_failure(rank, *failure_);
  }
  member.blob = blob;
  member.arrived = true;
  if (++num_arrived_ == num_ranks()) complete();
}

void ThreadHub::complete() {
  Blobs blobs;
  blobs.reserve(members_.size());
  for (Member& member : members_) {
    blobs.push_back(std::move(member.blob));
    member.arrived = false;
  }
  gathered_ = std::make_shared<const Blobs>(std::move(blobs));
  num_arrived_ = 0;
  ++num_completed_;
  changed_.notify_all();
}

void ThreadHub::set_failure(Failure failure) {
  failure_ = std::move(failure);
  changed_.notify_all();
}

std::optional<Rank> ThreadHub::departed_rank() const {
  for (Rank rank(0); rank.value() < num_ranks(); rank = rank.next()) {
    if (!members_[rank.index()].present) return rank;
  }
  return std::nullopt;
}

std::vector<Rank> ThreadHub::missing_ranks() const {
  std::vector<Rank> missing;
  for (Rank rank(0); rank.value() < num_ranks(); rank = rank.next()) {
    if (!members_[rank.index()].arrived) missing.push_back(rank);
  }
  return missing;
}

}  // namespace moelink
