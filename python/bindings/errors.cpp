// Binds ErrorCode and turns moelink::Error into the Python exception moelink.Error.
#include "moelink/errors.hpp"

#include "bindings.hpp"

namespace moelink::python {
namespace {

// The exception class is Python code (moelink.errors), looked up only when it is needed.
void set_python_error(const Error& error) {
  try {
    nb::object type = nb::module_::import_("moelink.errors").attr("Error");
    nb::object exception = type(error.what(), error.code());
    PyErr_SetObject(type.ptr(), exception.ptr());
  } catch (nb::python_error& lookup_failure) {
    lookup_failure.restore();
  }
}

}  // namespace

void bind_errors(nb::module_& m) {
  nb::enum_<ErrorCode>(m, "ErrorCode", "What the caller of a failed call can do about it.")
      .value("INVALID_ARGUMENT", ErrorCode::kInvalidArgument,
             "The call is wrong: fix the named argument and call again.")
      .value("UNSUPPORTED", ErrorCode::kUnsupported,
             "This build or machine cannot do it: `moelink doctor` says why.")
      .value("TIMEOUT", ErrorCode::kTimeout, "A peer did not arrive before the deadline.")
      .value("PEER_LOST", ErrorCode::kPeerLost,
             "A peer died or gave up: make a new group without it.")
      .value("SYSTEM", ErrorCode::kSystem, "The operating system or a driver refused.")
      .value("INTERNAL", ErrorCode::kInternal, "A bug in Moelink: please report it.");
  nb::register_exception_translator([](const std::exception_ptr& pointer, void*) {
    try {
      std::rethrow_exception(pointer);
    } catch (const Error& error) {
      set_python_error(error);
    }
  });
}

}  // namespace moelink::python
