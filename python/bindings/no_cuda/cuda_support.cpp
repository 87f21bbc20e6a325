// In builds without the CUDA backend.
#include "bindings/cuda_support.hpp"

#include "moelink/errors.hpp"

namespace moelink::python {

bool has_cuda_backend() { return false; }

const char* cuda_memory_kind(int device) {
  static_cast<void>(device);
  throw Error(ErrorCode::kUnsupported, "this build of Moelink has no CUDA backend");
}

const char* cuda_line_format(int device, int peer) {
  static_cast<void>(device);
  static_cast<void>(peer);
  throw Error(ErrorCode::kUnsupported, "this build of Moelink has no CUDA backend");
}

Event record_event(int device, void* cuda_stream) {
  static_cast<void>(device);
  static_cast<void>(cuda_stream);
  throw Error(ErrorCode::kUnsupported,
              "Event.record: this build of Moelink has no CUDA backend: build it with "
              "-DMOELINK_CUDA=ON");
}

}  // namespace moelink::python
