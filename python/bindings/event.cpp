// Binds Event.
#include "moelink/event.hpp"

#include "bindings.hpp"
#include "interpreter.hpp"

namespace moelink::python {

void bind_event(nb::module_& m) {
  nb::class_<Event>(m, "Event",
                    "Completion of one asynchronous operation; `Event()` is complete at once.")
      .def(nb::init<>())
      .def_prop_ro("pending", &Event::pending, "True while the work runs; never raises.")
      .def("wait", &Event::wait, nb::call_guard<ReleasedGil>(),
           "Return when the work is done; raises the `moelink.Error` with which it ended.")
      .def("__bool__", &Event::operator bool);
}

}  // namespace moelink::python
