// Shared declarations of the Python bindings: one bind function per public header.
#pragma once

#include <nanobind/nanobind.h>

namespace moelink::python {

namespace nb = nanobind;

void bind_errors(nb::module_& m);
void bind_dtypes(nb::module_& m);
void bind_types(nb::module_& m);
void bind_event(nb::module_& m);
void bind_group(nb::module_& m);
void bind_config(nb::module_& m);
void bind_results(nb::module_& m);
void bind_routing(nb::module_& m);
void bind_low_latency(nb::module_& m);
void bind_buffer(nb::module_& m);
void bind_quantize(nb::module_& m);
void bind_trace(nb::module_& m);
void bind_network(nb::module_& m);
void bind_machine(nb::module_& m);

}  // namespace moelink::python
