// Binds facts about this machine that `moelink doctor` and the benchmarks report.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "backend/cpu/simd/simd.hpp"
#include "bindings.hpp"
#include "cuda_support.hpp"
#include "symm/symmetric_memory.hpp"
#include "transport/fabric.hpp"

namespace moelink::python {

namespace {

void bind_fabric(nb::module_& m) {
  nb::class_<FabricProvider>(m, "FabricProvider", "A network provider that Moelink can use.")
      .def_ro("name", &FabricProvider::name)
      .def_ro("nics", &FabricProvider::nics)
      .def_ro("hmem", &FabricProvider::hmem, "Whether it claims to take memory of GPUs.");
  nb::class_<FabricReport>(m, "FabricReport", "What libfabric finds here.")
      .def_ro("problem", &FabricReport::problem, "Why it finds nothing, or empty.")
      .def_ro("version", &FabricReport::version)
      .def_ro("providers", &FabricReport::providers, "The best first.");
  m.def("fabric_report", &report_fabric, "Asks libfabric for all networks; takes a moment.");
}

}  // namespace

void bind_machine(nb::module_& m) {
  bind_fabric(m);
  m.def("available_memory_bytes", &available_memory_bytes,
        "Bytes that this process may still take: the least of free memory and its cgroup's limit.");
  m.def("simd_target", &simd::target_name, "SIMD instruction set that the CPU backend uses here.");
  m.def("has_cuda_backend", &has_cuda_backend, "Whether this build has the CUDA backend.");
  m.def("cuda_memory_kind", &cuda_memory_kind, nb::arg("device"),
        "Kind of symmetric memory that processes with this GPU each would share.");
  m.def("cuda_line_format", &cuda_line_format, nb::arg("device"), nb::arg("peer"),
        "How low latency messages go from a GPU to memory of another, or of itself.");
}

}  // namespace moelink::python
