// Binds facts about this machine that `moelink doctor` and the benchmarks report.
#include "backend/cpu/simd/simd.hpp"
#include "bindings.hpp"
#include "cuda_support.hpp"
#include "symm/symmetric_memory.hpp"

namespace moelink::python {

void bind_machine(nb::module_& m) {
  m.def("available_memory_bytes", &available_memory_bytes,
        "Bytes that this process may still take: the least of free memory and its cgroup's limit.");
  m.def("simd_target", &simd::target_name, "SIMD instruction set that the CPU backend uses here.");
  m.def("has_cuda_backend", &has_cuda_backend, "Whether this build has the CUDA backend.");
  m.def("cuda_memory_kind", &cuda_memory_kind, nb::arg("device"),
        "Kind of symmetric memory that processes with this GPU each would share.");
}

}  // namespace moelink::python
