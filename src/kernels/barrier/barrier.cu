// Entry of the barrier kernel: one block, an exchange and nothing else.
#include "kernels/barrier/launch.hpp"
#include "kernels/exchange/exchange.cuh"
#include "kernels/exchange/report.cuh"
#include "kernels/launch_check.hpp"

namespace moelink::kernels {
namespace {

constexpr int kNumThreads = 128;

__global__ __launch_bounds__(kNumThreads,
                             1) void barrier_kernel(const __grid_constant__ device::Domain domain,
                                                    const __grid_constant__ ExchangeBlock mine,
                                                    const ReportTarget report) {
  Verdict verdict = Verdict::kGaveUp;
  const bool takes_part = !has_fault(domain);
  if (takes_part) publish_call(domain, mine, nullptr, 0);
  if (takes_part &&
      await_all(domain, Operation::kBarrier, Stage::kExchange, SignalChannel::kExchanged)) {
    verdict = calls_agree(domain) ? Verdict::kProceed : Verdict::kRefused;
  }
  write_report(domain, report, verdict, 0);
  end_operation(domain);
}

}  // namespace

void load_barrier_kernel() { allow_shared_memory(barrier_kernel); }

void launch_barrier(const device::Domain& domain, const ExchangeBlock& mine,
                    const ReportTarget& report, cudaStream_t stream) {
  barrier_kernel<<<1, kNumThreads, 0, stream>>>(domain, mine, report);
  check_launch("launch a barrier");
}

}  // namespace moelink::kernels
