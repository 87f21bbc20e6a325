// The CPU backend with processes as ranks.
#include "conformance/buffer_conformance.hpp"
#include "conformance/forked_bootstrap.hpp"
#include "conformance/heap_tensors.hpp"

namespace moelink::test {
namespace {

std::vector<std::string> run_processes(int num_ranks, const std::function<void(Bootstrap&)>& body) {
  std::vector<std::string> errors;
  for (const RankOutcome& outcome : run_forked_ranks(num_ranks, body)) {
    const bool silent = outcome.error.empty() && !outcome.succeeded();
    errors.push_back(silent
                         ? fmt::format("exit code {}, signal {}", outcome.exit_code, outcome.signal)
                         : outcome.error);
  }
  return errors;
}

INSTANTIATE_TEST_SUITE_P(Cpu, BufferConformance,
                         ::testing::Values(BufferKind{"Processes", run_processes, allocate_on_heap,
                                                      copy_on_heap, copy_on_heap}),
                         [](const auto& instance) { return instance.param.name; });

BufferKind on_two_nodes() {
  BufferKind kind{"Processes", run_processes, allocate_on_heap, copy_on_heap, copy_on_heap};
  kind.num_nodes = 2;
  return kind;
}

// Over libfabric.
INSTANTIATE_TEST_SUITE_P(CpuTwoNodes, BufferConformance, ::testing::Values(on_two_nodes()),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace moelink::test
