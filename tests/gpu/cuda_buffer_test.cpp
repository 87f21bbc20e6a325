// The CUDA backend with threads and with processes as ranks, all on the first GPU.
#include "conformance/buffer_conformance.hpp"
#include "conformance/forked_bootstrap.hpp"
#include "conformance/thread_ranks.hpp"
#include "gpu/cuda_tensors.hpp"

namespace moelink::test {
namespace {

constexpr Device kFirstGpu{DeviceKind::kCuda, 0};

INSTANTIATE_TEST_SUITE_P(Cuda, BufferConformance,
                         ::testing::Values(BufferKind{"Threads", run_thread_ranks, allocate_on_gpu,
                                                      copy_to_gpu, copy_from_gpu, kFirstGpu},
                                           BufferKind{"Processes", run_process_ranks,
                                                      allocate_on_gpu, copy_to_gpu, copy_from_gpu,
                                                      kFirstGpu}),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace moelink::test
