// Polls pinned memory, and now and then looks after the peers and the device.
#include "backend/cuda/await_report.hpp"

#include <atomic>

#include "base/check.hpp"
#include "base/pause.hpp"

namespace moelink {
namespace {

constexpr std::chrono::milliseconds kCheckInterval{2};
// The kernel's own deadline comes first; this one is for a kernel that never ran.
constexpr std::chrono::seconds kGrace{10};

bool is_there(kernels::Report& report, const kernels::ReportTarget& target) {
  return std::atomic_ref(report.serial).load(std::memory_order_acquire) == target.serial;
}

// Ends the waits of this rank for good once a peer has died, unless it goes on without such peers:
// then a dead one is masked at the deadline as any other that is late.
void look_after_peers(const CudaContext& context) {
  if (context.survival == Survival::kMask) return;
  for (Rank peer(0); peer.value() < context.num_ranks(); peer = peer.next()) {
    if (peer == context.rank || context.memory->peer_alive(peer)) continue;
    std::atomic_ref(context.mailbox().cancelled).store(1, std::memory_order_release);
  }
}

}  // namespace

kernels::ReportTarget report_target(const CudaContext& context) {
  return kernels::ReportTarget{context.report(), context.epoch.value()};
}

const kernels::Report& await_report(const CudaContext& context, const kernels::ReportTarget& target,
                                    cudaStream_t stream) {
  kernels::Report& report = *target.report;
  const Deadline deadline = Deadline::after(context.timeout + kGrace);
  auto next_check = std::chrono::steady_clock::now() + kCheckInterval;
  while (!is_there(report, target)) {
    pause_core();
    if (std::chrono::steady_clock::now() < next_check) continue;
    next_check += kCheckInterval;
    const cudaError_t state = cudaStreamQuery(stream);
    if (state != cudaSuccess && state != cudaErrorNotReady) {
      check_cuda(state, "carry out an operation on the GPU");
    }
    look_after_peers(context);
    if (deadline.expired()) {
      fail(ErrorCode::kTimeout,
           "rank {}: the kernel of an operation has not run within {} ms: is the GPU busy with "
           "other work, or do the ranks' calls wait for each other in one stream?",
           context.rank.value(), deadline.span().count());
    }
  }
  if (report.verdict == device::Verdict::kGaveUp) {
    context.faults->throw_if_raised();
    fail(ErrorCode::kInternal, "rank {}: a kernel gave up without a reason", context.rank.value());
  }
  return report;
}

}  // namespace moelink
