// Hooks on the stages of a token: for timing tables, NVTX-like tools, and fault injection in tests.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

#include "moelink/types.hpp"

namespace moelink {

enum class Operation : std::uint8_t {
  kBootstrap,
  kOpen,
  kQueryLayout,
  kDispatch,
  kCachedDispatch,
  kCombine,
  kLowLatencyDispatch,
  kLowLatencyCombine,
  kBarrier,
  kClose,
};

// The stages of a token, in order; an operation passes through some of them.
enum class Stage : std::uint8_t {
  kRoute,
  kCount,
  kExchange,
  kPlace,
  kSend,
  kSignal,
  kReceive,
  kSendBack,
  kReduce,
  kRelease,  // all peers have finished reading this rank's memory
};

inline constexpr int kNumStages = 10;

const char* operation_name(Operation operation) noexcept;
const char* stage_name(Stage stage) noexcept;

enum class TracePoint : std::uint8_t { kBegin, kEnd };

struct TraceEvent {
  Operation operation;
  Stage stage;
  TracePoint point;
  Rank rank;
  std::chrono::steady_clock::time_point time;
};

using TraceHook = std::function<void(const TraceEvent&)>;

// Installs a hook for the whole process (an empty one removes it). The hook runs on the thread that
// executes the stage, may sleep or end the process, and must not throw. Calls in flight keep the
// hook that they started with. Costs one atomic load per stage when no hook is installed.
void set_trace_hook(TraceHook hook);

}  // namespace moelink
