// The CUDA backend with processes as ranks, all on the first GPU.
#include <cstdlib>

#include "conformance/buffer_conformance.hpp"
#include "conformance/forked_bootstrap.hpp"
#include "gpu/cuda_tensors.hpp"

namespace moelink::test {
namespace {

constexpr Device kFirstGpu{DeviceKind::kCuda, 0};

// MOELINK_TEST_NODES splits the ranks into so many emulated nodes. With MOELINK_NETWORK=libfabric
// their tensors pass through the host.
BufferKind processes() {
  BufferKind kind{"Processes", run_process_ranks, allocate_on_gpu,
                  copy_to_gpu, copy_from_gpu,     kFirstGpu};
  const char* const num_nodes = std::getenv("MOELINK_TEST_NODES");
  if (num_nodes != nullptr) kind.num_nodes = std::atoi(num_nodes);
  const char* const network = std::getenv("MOELINK_NETWORK");
  kind.through_host = kind.num_nodes > 1 && network != nullptr;
  return kind;
}

// Not with threads as ranks: CUDA does not promise that kernels in two streams of one process run
// at the same time, and these wait for one another.
INSTANTIATE_TEST_SUITE_P(Cuda, BufferConformance, ::testing::Values(processes()),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace moelink::test
