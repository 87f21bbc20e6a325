// A collective operation that moves nothing.
#pragma once

#include <cuda_runtime_api.h>

#include "device/domain.hpp"
#include "kernels/exchange/report.hpp"
#include "moelink/config.hpp"

namespace moelink::kernels {

struct BarrierParams {
  device::Domain domain;
  ExchangeBlock mine{};
  ReportTarget report;
  // [R], device memory: 1 for ranks that are not waited for. With Survival::kMask, ranks that do
  // not come are added.
  std::uint32_t* masked = nullptr;
  Survival survival = Survival::kRaise;
};

void load_barrier_kernel();
void launch_barrier(const BarrierParams& params, cudaStream_t stream);

}  // namespace moelink::kernels
