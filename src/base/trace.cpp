// The installed trace hook and the names of operations and stages.
#include "moelink/trace.hpp"

#include <atomic>
#include <memory>
#include <mutex>

#include "base/trace_scope.hpp"

namespace moelink {
namespace {

std::atomic<bool> hook_installed{false};

struct HookSlot {
  std::mutex mutex;
  std::shared_ptr<const TraceHook> hook;
};

// Never destroyed: stages may still run on other threads while the process exits.
HookSlot& hook_slot() {
  static HookSlot* const slot = new HookSlot;
  return *slot;
}

}  // namespace

const char* operation_name(Operation operation) noexcept {
  switch (operation) {
    case Operation::kBootstrap:
      return "bootstrap";
    case Operation::kOpen:
      return "open";
    case Operation::kQueryLayout:
      return "query_layout";
    case Operation::kDispatch:
      return "dispatch";
    case Operation::kCachedDispatch:
      return "cached_dispatch";
    case Operation::kCombine:
      return "combine";
    case Operation::kLowLatencyDispatch:
      return "low_latency_dispatch";
    case Operation::kLowLatencyCombine:
      return "low_latency_combine";
    case Operation::kBarrier:
      return "barrier";
    case Operation::kClose:
      return "close";
  }
  return "unknown";
}

const char* stage_name(Stage stage) noexcept {
  constexpr const char* kNames[kNumStages] = {"route",  "count",  "exchange", "place",
                                              "send",   "signal", "receive",  "send_back",
                                              "reduce", "release"};
  return kNames[static_cast<int>(stage)];
}

void set_trace_hook(TraceHook hook) {
  HookSlot& slot = hook_slot();
  const std::lock_guard lock(slot.mutex);
  hook_installed.store(static_cast<bool>(hook), std::memory_order_release);
  slot.hook = hook ? std::make_shared<const TraceHook>(std::move(hook)) : nullptr;
}

TraceScope::TraceScope(Operation operation, Stage stage, Rank rank) noexcept
    : operation_(operation),
      stage_(stage),
      rank_(rank),
      traced_(hook_installed.load(std::memory_order_acquire)) {
  if (traced_) report(TracePoint::kBegin);
}

TraceScope::~TraceScope() {
  if (traced_) report(TracePoint::kEnd);
}

void TraceScope::report(TracePoint point) noexcept {
  std::shared_ptr<const TraceHook> hook;
  {
    HookSlot& slot = hook_slot();
    const std::lock_guard lock(slot.mutex);
    hook = slot.hook;
  }
  if (!hook) return;
  (*hook)(TraceEvent{operation_, stage_, point, rank_, std::chrono::steady_clock::now()});
}

}  // namespace moelink
