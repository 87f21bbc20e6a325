// Words the errors of all bootstraps alike.
#include "bootstrap/failure.hpp"

#include <fmt/format.h>

#include "base/check.hpp"

namespace moelink {

std::string describe_ranks(const std::vector<Rank>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  const char* separator = "";
  for (const Rank rank : ranks) {
    text += fmt::format("{}{}", separator, rank.value());
    separator = ", ";
  }
  return text;
}

Failure missing_ranks_failure(std::string_view what, const std::vector<Rank>& missing,
                              std::chrono::milliseconds waited) {
  return {ErrorCode::kTimeout, fmt::format("{}: {} did not arrive within {} ms", what,
                                           describe_ranks(missing), waited.count())};
}

Failure lost_rank_failure(std::string_view what, Rank lost, std::string_view reason) {
  return {ErrorCode::kPeerLost, fmt::format("{}: lost rank {} ({})", what, lost.value(), reason)};
}

Failure mismatch_failure(Rank first, std::string_view first_what, Rank second,
                         std::string_view second_what) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("ranks called different collectives: rank {} is in '{}', rank {} in '{}'; "
                      "all ranks must make the same calls in the same order",
                      first.value(), first_what, second.value(), second_what)};
}

void throw_failure(Rank rank, const Failure& failure) {
  fail(failure.code, "rank {}: {}", rank.value(), failure.text);
}

void throw_earlier_failure(Rank rank, std::string_view what, const Failure& failure) {
  fail(failure.code, "rank {}: {}: the group failed earlier, make a new one ({})", rank.value(),
       what, failure.text);
}

}  // namespace moelink
