// The CUDA backend with processes as ranks, all on the first GPU.
#include "conformance/buffer_conformance.hpp"
#include "conformance/forked_bootstrap.hpp"
#include "gpu/cuda_tensors.hpp"

namespace moelink::test {
namespace {

constexpr Device kFirstGpu{DeviceKind::kCuda, 0};

// Not with threads as ranks: CUDA does not promise that kernels in two streams of one process run
// at the same time, and these wait for one another.
INSTANTIATE_TEST_SUITE_P(Cuda, BufferConformance,
                         ::testing::Values(BufferKind{"Processes", run_process_ranks,
                                                      allocate_on_gpu, copy_to_gpu, copy_from_gpu,
                                                      kFirstGpu}),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace moelink::test
