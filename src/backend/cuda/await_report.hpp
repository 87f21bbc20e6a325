// The host's wait for what a kernel reports of its exchange.
#pragma once

#include "backend/cuda/cuda_context.hpp"

namespace moelink {

// Where the call that has begun wants its report.
kernels::ReportTarget report_target(const CudaContext& context);

// Returns when the report of `target` is there. Throws Error(kTimeout) or Error(kPeerLost) when the
// kernel gave up, Error(kSystem) when it failed. Tells the kernel to give up when a peer has died.
const kernels::Report& await_report(const CudaContext& context, const kernels::ReportTarget& target,
                                    cudaStream_t stream);

}  // namespace moelink
