// The CPU backend with threads as ranks: of one node, and of emulated nodes over loopback and over
// a network that does whatever a network may do.
#include "conformance/buffer_conformance.hpp"
#include "conformance/chaotic_ranks.hpp"
#include "conformance/heap_tensors.hpp"
#include "conformance/thread_ranks.hpp"

namespace moelink::test {
namespace {

BufferKind on_nodes(const char* name, int num_nodes, NetworkPath path) {
  BufferKind kind{name, run_thread_ranks, allocate_on_heap, copy_on_heap, copy_on_heap};
  kind.num_nodes = num_nodes;
  kind.network_path = path;
  return kind;
}

BufferKind amid_chaos(const char* name, int num_nodes, NetworkPath path) {
  BufferKind kind = on_nodes(name, num_nodes, path);
  kind.run = run_chaotic_ranks;
  return kind;
}

INSTANTIATE_TEST_SUITE_P(Cpu, BufferConformance,
                         ::testing::Values(BufferKind{"Threads", run_thread_ranks, allocate_on_heap,
                                                      copy_on_heap, copy_on_heap}),
                         [](const auto& instance) { return instance.param.name; });

INSTANTIATE_TEST_SUITE_P(
    CpuNodes, BufferConformance,
    ::testing::Values(on_nodes("Two", 2, NetworkPath::kHierarchical),
                      on_nodes("TwoDirect", 2, NetworkPath::kDirect),
                      amid_chaos("TwoAmidChaos", 2, NetworkPath::kHierarchical),
                      amid_chaos("TwoDirectAmidChaos", 2, NetworkPath::kDirect),
                      amid_chaos("FourAmidChaos", 4, NetworkPath::kHierarchical)),
    [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace moelink::test
