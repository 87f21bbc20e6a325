// Log lines.
#include "base/log.hpp"

#include <gtest/gtest.h>

#include <string>

#include "base/environment.hpp"

namespace moelink {
namespace {

TEST(Log, WritesFormattedErrorsToStandardErrorUnlessSwitchedOff) {
  ::testing::internal::CaptureStderr();
  log(LogLevel::kError, "rank {} failed: {}", 3, "on purpose");
  const std::string text = ::testing::internal::GetCapturedStderr();
  const bool expected = environment().log_level != "off";
  EXPECT_EQ(text.find("rank 3 failed: on purpose") != std::string::npos, expected) << text;
  EXPECT_EQ(log_enabled(LogLevel::kError), expected);
}

TEST(Log, IsSilentBelowTheLevelOfTheEnvironment) {
  const std::string level = environment().log_level;
  const bool debug = level == "debug" || level == "trace";
  EXPECT_EQ(log_enabled(LogLevel::kDebug), debug);
  ::testing::internal::CaptureStderr();
  log(LogLevel::kDebug, "details");
  EXPECT_EQ(::testing::internal::GetCapturedStderr().find("details") != std::string::npos, debug);
}

}  // namespace
}  // namespace moelink
