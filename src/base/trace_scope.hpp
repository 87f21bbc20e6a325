// Reports the begin and the end of a stage to the installed trace hook.
#pragma once

#include "moelink/trace.hpp"

namespace moelink {

class TraceScope {
 public:
  TraceScope(Operation operation, Stage stage, Rank rank) noexcept;
  ~TraceScope();
  TraceScope(const TraceScope&) = delete;
  TraceScope& operator=(const TraceScope&) = delete;

 private:
  void report(TracePoint point) noexcept;

  Operation operation_;
  Stage stage_;
  Rank rank_;
  bool traced_;
};

}  // namespace moelink
