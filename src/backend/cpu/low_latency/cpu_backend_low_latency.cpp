// The low latency calls of the CPU backend: which half runs when, and on which thread.
#include <functional>
#include <memory>

#include "backend/cpu/arena_tensor.hpp"
#include "backend/cpu/cpu_backend.hpp"
#include "backend/cpu/exchange.hpp"
#include "backend/cpu/low_latency/low_latency_combine.hpp"
#include "backend/cpu/low_latency/low_latency_dispatch.hpp"
#include "backend/cpu/reunion.hpp"
#include "backend/single_shot.hpp"
#include "base/check.hpp"

namespace moelink {
template <class LowLatencyOperation, class Config>
auto CpuBackend::run_low_latency(Operation kind, const Config& config) {
  auto operation = std::make_shared<LowLatencyOperation>(*context_, low_latency_, config);
  auto result = operation->result();
  const auto send = [this, kind, operation] {
    guarded(kind, [&] {
      low_latency_.operation = kind;
      operation->send();
    });
  };
  const auto receive = [this, kind, operation] { guarded(kind, [&] { operation->receive(); }); };
  if (config.receive == ReceivePhase::kByHook) {
    context_->stream.run(send);
    const auto receive_on_stream = [alive = std::weak_ptr(self_), kind, receive] {
      const std::shared_ptr<CpuBackend*> self = alive.lock();
      if (!self) {
        fail(ErrorCode::kInvalidArgument, "{}: the hook was called after its buffer was closed",
             operation_name(kind));
      }
      (*self)->context_->stream.run(receive);
    };
    auto hook = std::make_shared<SingleShot>(kind, context_->rank, receive_on_stream);
    result.hook = [hook] { (*hook)(); };
    return result;
  }
  const auto both = [send, receive] {
    send();
    receive();
  };
  if (config.stream.completion == Completion::kSync) {
    context_->stream.run(both);
  } else {
    result.event = context_->stream.enqueue(both);
  }
  return result;
}

LowLatencyDispatchResult CpuBackend::low_latency_dispatch(const LowLatencyDispatchConfig& config) {
  return run_low_latency<LowLatencyDispatch>(Operation::kLowLatencyDispatch, config);
}

LowLatencyCombineResult CpuBackend::low_latency_combine(const LowLatencyCombineConfig& config) {
  return run_low_latency<LowLatencyCombine>(Operation::kLowLatencyCombine, config);
}

Tensor CpuBackend::low_latency_combine_buffer(const LowLatencyRouting& handle) {
  const auto [groups, rows] = OutputExtents::make(
      handle.layout, context_->num_ranks(), handle.num_experts, handle.num_max_tokens_per_rank);
  context_->stream.run([&, groups = groups, rows = rows] {
    Tensor& area = low_latency_.combine_area;
    const bool fits = area.defined() && area.view.shape[0] == groups &&
                      area.view.shape[1] == rows && area.view.shape[2] == handle.hidden;
    if (!fits) {
      area = make_arena_tensor(*context_->results, DType::kBFloat16, {groups, rows, handle.hidden});
    }
    low_latency_.combine_area_epoch = low_latency_.epoch.next();
  });
  return low_latency_.combine_area;
}

void CpuBackend::clean_low_latency() {
  if (context_->survival == Survival::kMask) {
    context_->stream.run([this] {
      guarded(Operation::kBarrier, [this] { meet_again(*context_, Operation::kBarrier); });
    });
  }
  barrier();
  context_->stream.run([this] {
    low_latency_.give_up_area();
    low_latency_.block.reset();
    // Ranks that might have written there have met this one since.
    if (!context_->signals->masks().any()) context_->quarantine.clear();
  });
}

void CpuBackend::set_mask(Rank rank, Mask mask) {
  RankMasks& masks = context_->signals->masks();
  if (mask == Mask::kSet) {
    masks.mask(rank);
  } else {
    masks.unmask(rank);
  }
}

bool CpuBackend::is_masked(Rank rank) const { return context_->signals->masks().is_masked(rank); }

}  // namespace moelink
