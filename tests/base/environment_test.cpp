// Parsing of environment variables.
#include "base/environment.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "moelink/errors.hpp"

namespace moelink {
namespace {

constexpr const char* kVariables[] = {
    "MOELINK_LOG",        "MOELINK_SECRET",      "MOELINK_NODES",
    "MOELINK_TIMEOUT_MS", "MOELINK_WORKERS",     "MOELINK_MAX_SYMMETRIC_BYTES",
    "MOELINK_SIMD",       "MOELINK_CUDA_MEMORY", "MOELINK_LINES"};

// Starts without any of the variables and restores what was set.
class EnvironmentTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : kVariables) {
      const char* const value = std::getenv(name);
      saved_.emplace_back(value == nullptr ? std::nullopt : std::optional<std::string>(value));
      ::unsetenv(name);
    }
  }
  void TearDown() override {
    for (std::size_t i = 0; i < saved_.size(); ++i) {
      ::unsetenv(kVariables[i]);
      if (saved_[i]) ::setenv(kVariables[i], saved_[i]->c_str(), 1);
    }
  }

  static void set(const char* name, const char* value) { ::setenv(name, value, 1); }

  static std::string error_of_read() {
    try {
      Environment::read();
    } catch (const Error& error) {
      return error.code() == ErrorCode::kInvalidArgument ? error.what() : "another code";
    }
    return "no error";
  }

 private:
  std::vector<std::optional<std::string>> saved_;
};

TEST_F(EnvironmentTest, DefaultsHoldWhenNothingIsSet) {
  const Environment values = Environment::read();
  EXPECT_EQ(values.log_level, "warning");
  EXPECT_EQ(values.secret, "");
  EXPECT_FALSE(values.timeout.has_value());
  EXPECT_EQ(values.num_nodes, 0);
  EXPECT_EQ(values.num_workers, 0);
  EXPECT_EQ(values.max_symmetric_bytes, 0U);
  EXPECT_EQ(values.simd, "");
  EXPECT_EQ(values.cuda_memory, "auto");
  EXPECT_EQ(values.line_format, "auto");
}

TEST_F(EnvironmentTest, ReadsEveryVariable) {
  set("MOELINK_LOG", "debug");
  set("MOELINK_SECRET", "between us");
  set("MOELINK_TIMEOUT_MS", "2500");
  set("MOELINK_NODES", "4");
  set("MOELINK_WORKERS", "3");
  set("MOELINK_MAX_SYMMETRIC_BYTES", "8589934592");
  set("MOELINK_SIMD", "AVX2");
  set("MOELINK_CUDA_MEMORY", "pinned");
  set("MOELINK_LINES", "split");
  const Environment values = Environment::read();
  EXPECT_EQ(values.log_level, "debug");
  EXPECT_EQ(values.secret, "between us");
  EXPECT_EQ(values.timeout, std::chrono::milliseconds(2500));
  EXPECT_EQ(values.num_nodes, 4);
  EXPECT_EQ(values.num_workers, 3);
  EXPECT_EQ(values.max_symmetric_bytes, std::size_t{8} << 30);
  EXPECT_EQ(values.simd, "AVX2");
  EXPECT_EQ(values.cuda_memory, "pinned");
  EXPECT_EQ(values.line_format, "split");
}

TEST_F(EnvironmentTest, EmptyVariablesCountAsNotSet) {
  for (const char* name : kVariables) set(name, "");
  EXPECT_EQ(Environment::read().log_level, "warning");
  EXPECT_FALSE(Environment::read().timeout.has_value());
}

TEST_F(EnvironmentTest, NumbersThatDoNotParseNameTheVariableAndItsValue) {
  for (const char* value : {"x", "12ms", "-1", "0", "1e3", "99999999999999999999", " 5"}) {
    set("MOELINK_TIMEOUT_MS", value);
    EXPECT_EQ(error_of_read(), "invalid argument: environment variable MOELINK_TIMEOUT_MS='" +
                                   std::string(value) + "': expected an integer >= 1");
  }
}

TEST_F(EnvironmentTest, UnknownLogLevelNamesTheChoices) {
  set("MOELINK_LOG", "loud");
  EXPECT_EQ(error_of_read(),
            "invalid argument: environment variable MOELINK_LOG='loud': expected trace, debug, "
            "info, warning, error or off");
}

TEST_F(EnvironmentTest, UnknownCudaMemoryNamesTheChoices) {
  set("MOELINK_CUDA_MEMORY", "VMM");
  EXPECT_EQ(error_of_read(),
            "invalid argument: environment variable MOELINK_CUDA_MEMORY='VMM': expected auto, vmm, "
            "fabric, ipc or pinned");
}

TEST_F(EnvironmentTest, UnknownLinesNameTheChoices) {
  set("MOELINK_LINES", "half");
  EXPECT_EQ(error_of_read(),
            "invalid argument: environment variable MOELINK_LINES='half': expected auto, whole or "
            "split");
}

}  // namespace
}  // namespace moelink
