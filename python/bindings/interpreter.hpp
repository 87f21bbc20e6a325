// Passing between C++ threads and the interpreter, also while the interpreter shuts down.
#pragma once

#include <nanobind/nanobind.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

namespace moelink::python {

namespace nb = nanobind;

// Lets threads into Python only while the interpreter runs, and lets its exit wait for those
// inside. Without it, a thread that asks for the GIL too late is ended by the interpreter in the
// middle of C++ code, which ends the process.
class InterpreterGate {
 public:
  // False once the gate is closed, except on the thread that closed it.
  bool enter();
  void leave();
  // Call without the GIL. Gives up on threads that stay inside for several seconds.
  void close();

 private:
  std::mutex mutex_;
  std::condition_variable empty_;
  int num_inside_ = 0;
  std::thread::id closer_;
};

InterpreterGate& interpreter_gate();

// For a forked child: the threads that were inside do not exist there.
void renew_interpreter_gate();

// Releases the GIL for a scope. A thread whose scope ends after the interpreter has shut down
// sleeps until the process ends.
class ReleasedGil {
 public:
  ReleasedGil() : state_(PyEval_SaveThread()) {}
  ~ReleasedGil();
  ReleasedGil(const ReleasedGil&) = delete;
  ReleasedGil& operator=(const ReleasedGil&) = delete;

 private:
  PyThreadState* state_;
};

// A share in a Python object for C++ code that copies and drops it on any thread, with or without
// the GIL. What is dropped after the interpreter's exit is leaked on purpose.
std::shared_ptr<PyObject> share(nb::object object);

}  // namespace moelink::python
