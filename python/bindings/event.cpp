// Binds Event.
#include "moelink/event.hpp"

#include "bindings.hpp"
#include "cuda_support.hpp"
#include "interpreter.hpp"

namespace moelink::python {
namespace {

// CUDA streams are numbers in Python: torch's `Stream.cuda_stream`.
void* stream_of(std::uintptr_t cuda_stream) { return reinterpret_cast<void*>(cuda_stream); }

}  // namespace

void bind_event(nb::module_& m) {
  nb::class_<Event>(m, "Event",
                    "Completion of one asynchronous operation; `Event()` is complete at once.")
      .def(nb::init<>())
      .def_static(
          "record",
          [](int device, std::uintptr_t cuda_stream) {
            const ReleasedGil release;
            return record_event(device, stream_of(cuda_stream));
          },
          nb::arg("device"), nb::arg("cuda_stream"),
          "An event behind what is enqueued on a stream of CUDA device number `device` now.")
      .def_prop_ro("pending", &Event::pending, "True while the work runs; never raises.")
      .def("wait", &Event::wait, nb::call_guard<ReleasedGil>(),
           "Return when the work is done; raises the `moelink.Error` with which it ended.")
      .def(
          "wait_on",
          [](const Event& self, std::uintptr_t cuda_stream) {
            const ReleasedGil release;
            self.wait_on(stream_of(cuda_stream));
          },
          nb::arg("cuda_stream"),
          "Make later work on a CUDA stream (torch's `stream.cuda_stream`) wait, not this thread; "
          "on the CPU as `wait`.")
      .def("__bool__", &Event::operator bool);
}

}  // namespace moelink::python
