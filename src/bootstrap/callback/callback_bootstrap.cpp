// Runs the user's all-gather and checks what it returns.
#include "bootstrap/callback/callback_bootstrap.hpp"

#include <utility>

#include "base/check.hpp"
#include "bootstrap/membership.hpp"

namespace moelink {

CallbackBootstrap::CallbackBootstrap(Rank rank, int num_ranks, AllGather gather)
    : rank_(rank), num_ranks_(num_ranks), gather_(std::move(gather)) {
  check_membership("group over an all_gather callback", rank, num_ranks);
  if (!gather_) {
    fail(ErrorCode::kInvalidArgument, "rank {}: all_gather is empty, expected a function",
         rank.value());
  }
}

std::vector<std::string> CallbackBootstrap::all_gather(const std::string& blob, const char* what,
                                                       const Deadline&) {
  std::vector<std::string> blobs = gather_(blob);
  if (blobs.size() != static_cast<std::size_t>(num_ranks_)) {
    fail(ErrorCode::kInvalidArgument,
         "rank {}: {}: the all_gather callback returned {} blobs, expected {} (one per rank)",
         rank_.value(), what, blobs.size(), num_ranks_);
  }
  if (blobs[rank_.index()] != blob) {
    fail(ErrorCode::kInvalidArgument,
         "rank {}: {}: entry {} returned by the all_gather callback is not the blob that this rank "
         "passed in; expected the blobs in rank order, unchanged",
         rank_.value(), what, rank_.value());
  }
  return blobs;
}

}  // namespace moelink
