// Log lines through spdlog, which no other file of Moelink sees.
#include "base/log.hpp"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>

#include "base/environment.hpp"

namespace moelink {
namespace {

// Not registered with spdlog, so that programs which use spdlog themselves are left alone.
spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
    auto made = std::make_shared<spdlog::logger>("moelink", std::move(sink));
    made->set_pattern("%Y-%m-%d %H:%M:%S.%e moelink[%P] %^%l%$ %v");
    made->set_level(spdlog::level::from_str(environment().log_level));
    return made;
  }();
  return *instance;
}

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

}  // namespace

bool log_enabled(LogLevel level) { return logger().should_log(spdlog_level(level)); }

void write_log(LogLevel level, const std::string& message) {
  logger().log(spdlog_level(level), message);
}

}  // namespace moelink
