// A bootstrap over an all-gather that the user brings, such as a torch process group's.
#pragma once

#include "bootstrap/bootstrap.hpp"
#include "moelink/group.hpp"

namespace moelink {

// Deadlines are those of the callback: it runs on the calling thread and cannot be interrupted.
// Exceptions of the callback pass through unchanged.
class CallbackBootstrap final : public Bootstrap {
 public:
  CallbackBootstrap(Rank rank, int num_ranks, AllGather gather);

  Rank rank() const override { return rank_; }
  int num_ranks() const override { return num_ranks_; }

  // Throws Error(kInvalidArgument) when the callback does not return one blob per rank with the own
  // blob at index `rank`.
  std::vector<std::string> all_gather(const std::string& blob, const char* what,
                                      const Deadline& deadline) override;

 private:
  Rank rank_;
  int num_ranks_;
  AllGather gather_;
};

}  // namespace moelink
