// The extension module moelink._core.
#include "bindings.hpp"
#include "interpreter.hpp"
#include "moelink/trace.hpp"
#include "moelink/version.hpp"

namespace moelink::python {
namespace {

// Runs after Python has joined its threads and before the interpreter is taken down.
void leave_interpreter() {
  const ReleasedGil release;
  set_trace_hook({});
  interpreter_gate().close();
}

void watch_interpreter() {
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(&leave_interpreter));
  nb::module_::import_("os").attr("register_at_fork")(
      nb::arg("after_in_child") = nb::cpp_function(&renew_interpreter_gate));
}

}  // namespace
}  // namespace moelink::python

NB_MODULE(_core, m) {
  using namespace moelink::python;
  m.doc() = "C++ core of moelink; use the package's public names instead.";
  // Tensors, buffers and events that live until the interpreter ends are normal use.
  nanobind::set_leak_warnings(false);
  m.attr("__version__") = moelink::kVersion;
  m.attr("PROTOCOL_VERSION") = moelink::kProtocolVersion;
  bind_errors(m);
  bind_dtypes(m);
  bind_types(m);
  bind_event(m);
  bind_group(m);
  bind_config(m);
  bind_routing(m);
  bind_results(m);
  bind_quantize(m);
  bind_low_latency(m);
  bind_buffer(m);
  bind_trace(m);
  bind_network(m);
  bind_machine(m);
  watch_interpreter();
}
