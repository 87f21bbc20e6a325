// Binds the trace hook: a Python callable that worker threads call, safe at interpreter exit.
#include "moelink/trace.hpp"

#include <chrono>

#include "bindings.hpp"
#include "interpreter.hpp"

namespace moelink::python {
namespace {

void call_python_hook(nb::handle callable, const TraceEvent& event) {
  nb::gil_scoped_acquire gil;
  try {
    callable(event);
  } catch (nb::python_error& error) {
    error.discard_as_unraisable("moelink trace hook");
  }
}

TraceHook make_hook(nb::object callable) {
  return [callable = share(std::move(callable))](const TraceEvent& event) {
    if (!interpreter_gate().enter()) return;
    call_python_hook(callable.get(), event);
    interpreter_gate().leave();
  };
}

void set_hook(const nb::object& callable) {
  TraceHook hook;
  if (!callable.is_none()) {
    if (PyCallable_Check(callable.ptr()) == 0) {
      throw nb::type_error("set_trace_hook: hook must be callable or None");
    }
    hook = make_hook(callable);
  }
  const ReleasedGil release;
  set_trace_hook(std::move(hook));
}

std::int64_t nanoseconds(const TraceEvent& event) {
  const auto since_boot = event.time.time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since_boot).count();
}

}  // namespace

void bind_trace(nb::module_& m) {
  nb::class_<TraceEvent>(m, "TraceEvent", "Begin or end of one stage of an operation.")
      .def_prop_ro("operation",
                   [](const TraceEvent& self) { return operation_name(self.operation); })
      .def_prop_ro("stage", [](const TraceEvent& self) { return stage_name(self.stage); })
      .def_prop_ro(
          "point",
          [](const TraceEvent& self) { return self.point == TracePoint::kBegin ? "begin" : "end"; })
      .def_prop_ro("rank", [](const TraceEvent& self) { return self.rank.value(); })
      .def_prop_ro("time_ns", &nanoseconds, "Comparable with `time.monotonic_ns()`.");
  m.def("set_trace_hook", &set_hook, nb::arg("hook").none());
}

}  // namespace moelink::python
