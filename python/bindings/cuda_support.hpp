// What Python needs of CUDA beside the backend, in builds with it and without.
#pragma once

#include "moelink/event.hpp"

namespace moelink::python {

// Whether this build has the CUDA backend.
bool has_cuda_backend();

// The kind of symmetric memory that ranks which are processes, `device` at each, would share:
// "vmm", "ipc", or as MOELINK_CUDA_MEMORY wishes. Throws Error where CUDA does not work, or cannot
// do what is wished.
const char* cuda_memory_kind(int device);

// How low latency messages go from `device` to memory of `peer`: "whole" or "split". Throws Error
// where CUDA does not work.
const char* cuda_line_format(int device, int peer);

// An event behind what is enqueued on `cuda_stream`, a cudaStream_t of `device`, now. Throws
// Error(kUnsupported) in builds without the CUDA backend.
Event record_event(int device, void* cuda_stream);

}  // namespace moelink::python
