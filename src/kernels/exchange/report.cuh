// Writing of a report.
#pragma once

#include "kernels/exchange/exchange.cuh"
#include "kernels/exchange/report.hpp"

namespace moelink::kernels {

// One thread, after an exchange that has refused the calls: if no host waits for the report, the
// refusal becomes this rank's fault, which the next call throws.
__device__ inline void raise_refusal(const Domain& domain, const ReportTarget& target,
                                     Operation operation) {
  if (target.report != nullptr) return;
  const Epoch epoch = current_epoch(domain);
  device::raise_fault(domain, {operation, Stage::kExchange, domain.rank, epoch},
                      device::FaultCause::kRefused, 0, 0);
}

// All threads of block 0, after the exchange. `num_counts`: per rank; 0: none were exchanged.
__device__ inline void write_report(const Domain& domain, const ReportTarget& target,
                                    Verdict verdict, int num_counts) {
  if (target.report == nullptr) return;
  const Epoch epoch = current_epoch(domain);
  Report& report = *target.report;
  const int num_ranks = domain.num_ranks();
  constexpr int kWords = sizeof(ExchangeBlock) / sizeof(std::uint64_t);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < num_ranks * kWords;
       i += static_cast<int>(blockDim.x)) {
    const auto* const block = reinterpret_cast<const std::uint64_t*>(
        domain.exchange(domain.rank, epoch, Rank(i / kWords)));
    reinterpret_cast<std::uint64_t*>(report.blocks())[i] = block[i % kWords];
  }
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < num_ranks * num_counts;
       i += static_cast<int>(blockDim.x)) {
    const std::int32_t* const row = domain.count_row(domain.rank, epoch, Rank(i / num_counts));
    report.counts(num_ranks)[i] = row[i % num_counts];
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  report.verdict = verdict;
  device::SystemWord<std::uint64_t>(report.serial).store(target.serial, cuda::memory_order_release);
}

}  // namespace moelink::kernels
