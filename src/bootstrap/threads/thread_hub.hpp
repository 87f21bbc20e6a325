// Where the threads of a group meet: one mutex, one condition variable, one open collective.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/deadline.hpp"
#include "bootstrap/failure.hpp"
#include "moelink/types.hpp"

namespace moelink {

class ThreadHub {
 public:
  explicit ThreadHub(int num_ranks);

  int num_ranks() const { return static_cast<int>(members_.size()); }
  std::vector<std::string> all_gather(Rank rank, const std::string& blob, const char* what,
                                      const Deadline& deadline);
  // The rank takes part no more.
  void depart(Rank rank);

 private:
  using Blobs = std::vector<std::string>;
  struct Member {
    bool present = true;
    bool arrived = false;  // its blob for the open collective is here
    std::string blob;
  };

  // All require mutex_ to be held.
  void deposit(Rank rank, const std::string& blob, const char* what);
  void complete();
  void set_failure(Failure failure);
  std::optional<Rank> departed_rank() const;
  std::vector<Rank> missing_ranks() const;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Member> members_;
  int num_arrived_ = 0;
  std::uint64_t num_completed_ = 0;
  Rank first_rank_;         // of the open collective
  std::string first_what_;  // what its first rank calls it
  // Of the last completed collective. The next one cannot complete before all ranks have taken it.
  std::shared_ptr<const Blobs> gathered_;
  std::optional<Failure> failure_;
};

}  // namespace moelink
