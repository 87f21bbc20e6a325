// In builds with the CUDA backend.
#include "bindings/cuda_support.hpp"

#include <memory>

#include "backend/cuda/line_format.hpp"
#include "backend/event_state.hpp"
#include "base/check.hpp"
#include "base/cuda/owners.hpp"
#include "base/environment.hpp"
#include "symm/cuda/device_allocation.hpp"

namespace moelink::python {
namespace {

class RecordedEvent final : public EventState {
 public:
  explicit RecordedEvent(cudaStream_t stream) : event_(CudaEvent::make()) {
    check_cuda(cudaEventRecord(event_.get(), stream), "record an event");
  }

  bool pending() const override { return cudaEventQuery(event_.get()) == cudaErrorNotReady; }
  void wait() const override {
    check_cuda(cudaEventSynchronize(event_.get()), "wait for an event");
  }
  void wait_on(void* cuda_stream) const override {
    check_cuda(cudaStreamWaitEvent(static_cast<cudaStream_t>(cuda_stream), event_.get(), 0),
               "make a stream wait for an event");
  }

 private:
  CudaEvent event_;
};

const char* fabric_kind(int device) {
  if (device_maps_addresses(device) && device_exports_fabric(device)) return "fabric";
  fail(ErrorCode::kUnsupported,
       "MOELINK_CUDA_MEMORY=fabric: device {} cannot pass its memory on as fabric handles", device);
}

}  // namespace

bool has_cuda_backend() { return true; }

const char* cuda_memory_kind(int device) {
  const DeviceScope scope(device);
  check_cuda(cudaFree(nullptr), "initialise a device");
  const std::string& wish = environment().cuda_memory;
  if (wish == "pinned") return "pinned";
  if (wish == "fabric") return fabric_kind(device);
  const bool can_pass = device_maps_addresses(device) && device_exports_descriptors(device);
  return can_pass && wish != "ipc" ? "vmm" : "ipc";
}

const char* cuda_line_format(int device, int peer) {
  const std::string& wish = environment().line_format;
  if (wish == "whole" || (wish == "auto" && device == peer)) return "whole";
  if (wish == "split") return "split";
  return has_native_atomics(device, peer) ? "whole" : "split";
}

Event record_event(int device, void* cuda_stream) {
  const DeviceScope scope(device);
  return Event(std::make_shared<RecordedEvent>(static_cast<cudaStream_t>(cuda_stream)));
}

}  // namespace moelink::python
