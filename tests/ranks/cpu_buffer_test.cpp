// The CPU backend with threads as ranks.
#include "conformance/buffer_conformance.hpp"
#include "conformance/heap_tensors.hpp"
#include "conformance/thread_ranks.hpp"

namespace moelink::test {
namespace {

INSTANTIATE_TEST_SUITE_P(Cpu, BufferConformance,
                         ::testing::Values(BufferKind{"Threads", run_thread_ranks, allocate_on_heap,
                                                      copy_on_heap, copy_on_heap}),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace moelink::test
