// Exchanges the outcomes of a step, so that ranks never disagree about whether it worked.
#include "symm/collective_step.hpp"

#include <exception>
#include <optional>
#include <utility>

#include "base/check.hpp"
#include "bootstrap/failure.hpp"

namespace moelink {
namespace {

// First byte of an exchanged outcome: kSucceeded, or kFailed followed by the code and the text.
constexpr char kSucceeded = '+';
constexpr char kFailed = '-';
constexpr std::size_t kFailureHeader = 2;

// Error puts the name of its code in front; it must not appear twice.
std::string text_without_code(const Error& error) {
  const std::string text = error.what();
  const std::string prefix = fmt::format("{}: ", error_code_name(error.code()));
  return text.starts_with(prefix) ? text.substr(prefix.size()) : text;
}

std::string encode_failure(const Failure& failure) {
  return std::string{kFailed, static_cast<char>(failure.code)} + failure.text;
}

[[noreturn]] void throw_outcome(const char* what, std::size_t rank, const Failure& failure) {
  fail(failure.code, "{}: rank {}: {}", what, rank, failure.text);
}

std::optional<Failure> run_step(const std::function<std::string()>& step, std::string& result) {
  try {
    result = step();
    return std::nullopt;
  } catch (const Error& error) {
    return Failure{error.code(), text_without_code(error)};
  } catch (const std::exception& error) {
    return Failure{ErrorCode::kSystem, error.what()};
  }
}

std::optional<Failure> failure_in(const char* what, std::size_t rank, const std::string& outcome) {
  if (outcome.starts_with(kSucceeded)) return std::nullopt;
  if (!outcome.starts_with(kFailed) || outcome.size() < kFailureHeader) {
    fail(ErrorCode::kInternal, "{}: rank {} sent an outcome of {} bytes that cannot be read", what,
         rank, outcome.size());
  }
  return Failure{static_cast<ErrorCode>(outcome[1]), outcome.substr(kFailureHeader)};
}

bool is_consequence(const Failure& failure) {
  return failure.code == ErrorCode::kPeerLost || failure.code == ErrorCode::kTimeout;
}

// A rank that misses another one failed because of it: the other one's reason is worth more.
void throw_root_cause(const char* what, const std::vector<std::string>& outcomes) {
  std::optional<Failure> worst;
  std::size_t worst_rank = 0;
  for (std::size_t rank = 0; rank < outcomes.size(); ++rank) {
    std::optional<Failure> failure = failure_in(what, rank, outcomes[rank]);
    if (!failure || (worst && !is_consequence(*worst))) continue;
    if (worst && is_consequence(*failure)) continue;
    worst = std::move(failure);
    worst_rank = rank;
  }
  if (worst) throw_outcome(what, worst_rank, *worst);
}

}  // namespace

std::vector<std::string> collective_step(Bootstrap& bootstrap, const char* what,
                                         const Deadline& deadline,
                                         const std::function<std::string()>& step) {
  std::string result;
  const std::optional<Failure> failure = run_step(step, result);
  std::vector<std::string> outcomes;
  try {
    outcomes = bootstrap.whole().all_gather(
        failure ? encode_failure(*failure) : kSucceeded + result, what, deadline);
  } catch (const Error&) {
    if (failure) throw_outcome(what, bootstrap.whole().rank().index(), *failure);
    throw;
  }
  throw_root_cause(what, outcomes);
  outcomes = bootstrap.own_part(std::move(outcomes));
  for (std::string& outcome : outcomes) outcome.erase(0, 1);
  return outcomes;
}

}  // namespace moelink
