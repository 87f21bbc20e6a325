// Why a group of ranks can no longer exchange blobs, in words that hold on every rank.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "base/deadline.hpp"
#include "moelink/errors.hpp"
#include "moelink/types.hpp"

namespace moelink {

struct Failure {
  ErrorCode code = ErrorCode::kInternal;
  std::string text;
};

// "rank 3" or "ranks 1, 3, 5".
std::string describe_ranks(const std::vector<Rank>& ranks);

Failure missing_ranks_failure(std::string_view what, const std::vector<Rank>& missing,
                              std::chrono::milliseconds waited);
Failure lost_rank_failure(std::string_view what, Rank lost, std::string_view reason);
// Two ranks are in different collectives.
Failure mismatch_failure(Rank first, std::string_view first_what, Rank second,
                         std::string_view second_what);

// Throws Error "rank <rank>: <text>".
[[noreturn]] void throw_failure(Rank rank, const Failure& failure);
// The same for a call made after the group has failed.
[[noreturn]] void throw_earlier_failure(Rank rank, std::string_view what, const Failure& failure);

}  // namespace moelink
