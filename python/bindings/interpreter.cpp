// The gate between C++ threads and the interpreter.
#include "interpreter.hpp"

#include <unistd.h>

#include <chrono>
#include <utility>

namespace moelink::python {
namespace {

constexpr std::chrono::seconds kExitPatience{5};

// Gates are never destroyed: worker threads may outlive the static objects of this module.
InterpreterGate*& current_gate() {
  static auto* gate = new InterpreterGate;
  return gate;
}

}  // namespace

bool InterpreterGate::enter() {
  const std::lock_guard lock(mutex_);
  const bool closed = closer_ != std::thread::id();
  if (closed && closer_ != std::this_thread::get_id()) return false;
  ++num_inside_;
  return true;
}

void InterpreterGate::leave() {
  const std::lock_guard lock(mutex_);
  if (--num_inside_ <= 0) empty_.notify_all();
}

void InterpreterGate::close() {
  std::unique_lock lock(mutex_);
  closer_ = std::this_thread::get_id();
  empty_.wait_for(lock, kExitPatience, [this] { return num_inside_ <= 0; });
}

InterpreterGate& interpreter_gate() { return *current_gate(); }

void renew_interpreter_gate() { current_gate() = new InterpreterGate; }

ReleasedGil::~ReleasedGil() {
  while (!interpreter_gate().enter()) pause();
  PyEval_RestoreThread(state_);
  interpreter_gate().leave();
}

std::shared_ptr<PyObject> share(nb::object object) {
  return std::shared_ptr<PyObject>(object.release().ptr(), [](PyObject* owned) {
    if (!interpreter_gate().enter()) return;
    if (Py_IsInitialized() != 0) {
      const nb::gil_scoped_acquire gil;
      Py_XDECREF(owned);
    }
    interpreter_gate().leave();
  });
}

}  // namespace moelink::python
