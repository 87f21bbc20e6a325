// Exchanges results or errors in one all-gather.
#include "transport/collective_open.hpp"

#include "base/check.hpp"

namespace moelink {

namespace {

// First byte of an outcome; after kFailed the code and the text follow.
constexpr char kSucceeded = '+';
constexpr char kFailed = '-';

std::string outcome_of_step(const std::function<std::string()>& step) {
  try {
    return kSucceeded + step();
  } catch (const Error& error) {
    const std::string prefix = fmt::format("{}: ", error_code_name(error.code()));
    const std::string text = error.what();
    return std::string{kFailed, static_cast<char>(error.code())} + text.substr(prefix.size());
  } catch (const std::exception& error) {
    return std::string{kFailed, static_cast<char>(ErrorCode::kSystem)} + error.what();
  }
}

}  // namespace

std::vector<std::string> open_together(const TransportGroup& group, const char* what,
                                       const Deadline& deadline,
                                       const std::function<std::string()>& step) {
  std::vector<std::string> outcomes = group.all_gather(outcome_of_step(step), what, deadline);
  for (std::size_t rank = 0; rank < outcomes.size(); ++rank) {
    std::string& outcome = outcomes[rank];
    if (outcome.size() > 1 && outcome[0] == kFailed) {
      fail(static_cast<ErrorCode>(outcome[1]), "{}: rank {}: {}", what, rank, outcome.substr(2));
    }
    if (!outcome.starts_with(kSucceeded)) {
      fail(ErrorCode::kInternal, "{}: rank {} sent an outcome that cannot be read", what, rank);
    }
    outcome.erase(0, 1);
  }
  return outcomes;
}

}  // namespace moelink
