// Errors, collected violations and invariants.
#include "moelink/errors.hpp"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>
#include <string>

#include "base/check.hpp"

namespace moelink {
namespace {

constexpr ErrorCode kCodes[] = {ErrorCode::kInvalidArgument, ErrorCode::kUnsupported,
                                ErrorCode::kTimeout,         ErrorCode::kPeerLost,
                                ErrorCode::kSystem,          ErrorCode::kInternal};

template <class Call>
Error error_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorCode::kInternal, "nothing was thrown");
}

TEST(Error, TextStartsWithTheNameOfItsCode) {
  for (const ErrorCode code : kCodes) {
    const Error error(code, "what happened");
    EXPECT_EQ(error.code(), code);
    EXPECT_EQ(std::string(error.what()), std::string(error_code_name(code)) + ": what happened");
  }
}

TEST(Error, EveryCodeHasItsOwnName) {
  std::set<std::string> names;
  for (const ErrorCode code : kCodes) names.insert(error_code_name(code));
  EXPECT_EQ(names.size(), std::size(kCodes));
  EXPECT_EQ(names.count("unknown error"), 0U);
}

TEST(Fail, ThrowsTheCodeWithTheFormattedText) {
  const Error error = error_of([] { fail(ErrorCode::kTimeout, "rank {} of {}", 3, 4); });
  EXPECT_EQ(error.code(), ErrorCode::kTimeout);
  EXPECT_STREQ(error.what(), "timeout: rank 3 of 4");
}

TEST(Fail, OfErrnoHasTheSystemsTextAndNumber) {
  const Error error = error_of([] { fail_errno(ENOENT, "cannot open {}", "file"); });
  EXPECT_EQ(error.code(), ErrorCode::kSystem);
  EXPECT_STREQ(error.what(), "system error: cannot open file: No such file or directory (errno 2)");
}

TEST(Violations, ThrowNothingWhenAllRequirementsHold) {
  Violations violations("dispatch (rank 2)");
  violations.require(true, "never seen");
  EXPECT_TRUE(violations.empty());
  EXPECT_NO_THROW(violations.throw_if_any());
}

TEST(Violations, ReportEveryBrokenRequirementBehindTheContext) {
  Violations violations("dispatch (rank 2)");
  violations.require(false, "x is {}", 1);
  violations.require(true, "never seen");
  violations.require(false, "y is {}", 2);
  EXPECT_FALSE(violations.empty());
  const Error error = error_of([&] { violations.throw_if_any(); });
  EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  EXPECT_STREQ(error.what(), "invalid argument: dispatch (rank 2): x is 1; y is 2");
}

TEST(Violations, OpenWithTheCallAndItsRank) {
  Violations violations("dispatch", Rank(2));
  EXPECT_NO_THROW(violations.throw_if_any());
  violations.add("x is {}", 1);
  const Error error = error_of([&] { violations.throw_if_any(); });
  EXPECT_STREQ(error.what(), "invalid argument: dispatch (rank 2): x is 1");
}

TEST(InvariantDeathTest, AbortsNamingTheBrokenConditionAndItsPlace) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  MOELINK_INVARIANT(1 + 1 == 2);
  EXPECT_DEATH(MOELINK_INVARIANT(1 + 1 == 3),
               "broken invariant: 1 \\+ 1 == 3 at .*errors_test.cpp");
}

}  // namespace
}  // namespace moelink
