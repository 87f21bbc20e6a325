// A collective operation that moves nothing.
#pragma once

#include <cuda_runtime_api.h>

#include "device/domain.hpp"
#include "kernels/exchange/report.hpp"

namespace moelink::kernels {

void load_barrier_kernel();
void launch_barrier(const device::Domain& domain, const ExchangeBlock& mine,
                    const ReportTarget& report, cudaStream_t stream);

}  // namespace moelink::kernels
