// Log lines to standard error, each with the rank when it is known.
#pragma once

#include <fmt/format.h>

#include <string>

namespace moelink {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

bool log_enabled(LogLevel level);
void write_log(LogLevel level, const std::string& message);

template <class... Args>
void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(level)) write_log(level, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace moelink
