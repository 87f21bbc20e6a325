// Entry of the barrier kernel: one block, an exchange and nothing else.
#include "kernels/barrier/launch.hpp"
#include "kernels/exchange/exchange.cuh"
#include "kernels/exchange/report.cuh"
#include "kernels/launch_check.hpp"

namespace moelink::kernels {
namespace {

constexpr int kNumThreads = 128;

// One thread: waits for the block of `peer`. False: the rank has a fault.
__device__ bool await_peer(const BarrierParams& params, Rank peer) {
  const Domain& domain = params.domain;
  const Epoch epoch = current_epoch(domain);
  const auto operation = static_cast<Operation>(params.mine.digest.get(DigestField::kOperation));
  const device::WaitTarget target{operation, Stage::kExchange, peer, epoch};
  std::uint64_t* const word = domain.signal(domain.rank, SignalChannel::kExchanged, peer);
  const SignalValue value = SignalValue::of(epoch, kDone);
  if (params.survival == Survival::kRaise) return device::wait_for(domain, target, word, value);
  device::WaitEnd end;
  if (!device::await_word(domain, target, word, value, end)) params.masked[peer.index()] = 1;
  return true;
}

// All threads: what await_all() does, without the ranks that are masked.
__device__ bool await_present(const BarrierParams& params) {
  int missing = 0;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < params.domain.num_ranks(); i += kNumThreads) {
    if (params.masked[i] == 0 && !await_peer(params, Rank(i))) missing = 1;
  }
  return __syncthreads_or(missing) == 0;
}

// Whether the calls fit together is for the host to find out.
__global__ __launch_bounds__(kNumThreads,
                             1) void barrier_kernel(const __grid_constant__ BarrierParams params) {
  const Domain& domain = params.domain;
  Verdict verdict = Verdict::kGaveUp;
  const bool takes_part = !has_fault(domain);
  if (takes_part) publish_call(domain, params.mine, nullptr, 0);
  if (takes_part && await_present(params)) verdict = Verdict::kProceed;
  write_report(domain, params.report, verdict, 0);
  end_operation(domain);
}

}  // namespace

void load_barrier_kernel() { allow_shared_memory(barrier_kernel); }

void launch_barrier(const BarrierParams& params, cudaStream_t stream) {
  barrier_kernel<<<1, kNumThreads, 0, stream>>>(params);
  check_launch("launch a barrier");
}

}  // namespace moelink::kernels
