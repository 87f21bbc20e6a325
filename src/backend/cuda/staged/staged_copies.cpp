// One stream, a pool of pinned memory, and memory of the GPU that is allocated in stream order.
#include "backend/cuda/staged/staged_copies.hpp"

#include <algorithm>
#include <mutex>
#include <utility>

#include "backend/event_state.hpp"
#include "base/check.hpp"
#include "protocol/limits.hpp"

namespace moelink {
namespace {

class StagedEvent final : public EventState {
 public:
  explicit StagedEvent(CudaEvent event) : event_(std::move(event)) {}

  bool pending() const override {
    const bool not_ready = cudaEventQuery(event_.get()) == cudaErrorNotReady;
    cudaGetLastError();  // "not ready" is no error of a later call
    return not_ready;
  }
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

// Bytes from the first to the last element.
std::size_t span_bytes(const TensorView& tensor) {
  std::int64_t last = 0;
  for (int i = 0; i < tensor.ndim; ++i) {
    const auto dim = static_cast<std::size_t>(i);
    if (tensor.shape[dim] == 0) return 0;
    last += (tensor.shape[dim] - 1) * tensor.strides[dim];
  }
  return static_cast<std::size_t>(last + 1) * dtype_size(tensor.dtype);
}

}  // namespace

struct StagedCopies::Shared {
  struct Pinned {
    std::shared_ptr<std::byte> memory;
    std::size_t bytes = 0;
  };

  // Behind what the last caller has enqueued, as its kernels may still use the memory.
  void give_back(void* memory) noexcept {
    const std::scoped_lock lock(mutex);
    const bool in_order = cudaEventRecord(released.get(), last_caller) == cudaSuccess &&
                          cudaStreamWaitEvent(stream.get(), released.get(), 0) == cudaSuccess;
    if (!in_order) {  // the caller has destroyed its stream
      cudaGetLastError();
      cudaDeviceSynchronize();
    }
    cudaFreeAsync(memory, stream.get());
  }

  CudaStream stream = CudaStream::make();
  std::mutex mutex;  // guards what follows
  CudaEvent released = CudaEvent::make();
  cudaStream_t last_caller = nullptr;
  std::vector<Pinned> free_pinned;
};

StagedCopies::StagedCopies(int device)
    : device_(device), shared_(std::make_shared<Shared>()), fork_(CudaEvent::make()) {}

void StagedCopies::begin(const StreamOptions& options) {
  auto* const caller = static_cast<cudaStream_t>(options.cuda_stream);
  if (is_capturing(caller)) {
    fail(ErrorCode::kUnsupported,
         "operations between nodes cannot be captured in a CUDA graph: tokens pass through memory "
         "of the host");
  }
  {
    const std::scoped_lock lock(shared_->mutex);
    shared_->last_caller = caller;
  }
  if (options.previous_event) return options.previous_event.wait_on(shared_->stream.get());
  check_cuda(cudaEventRecord(fork_.get(), caller), "record an event");
  check_cuda(cudaStreamWaitEvent(shared_->stream.get(), fork_.get(), 0), "make a stream wait");
}

std::shared_ptr<std::byte> StagedCopies::take_pinned(std::size_t bytes) {
  Shared::Pinned taken{nullptr, align_up(std::max<std::size_t>(bytes, 1), std::size_t{4096})};
  {
    const std::scoped_lock lock(shared_->mutex);
    const auto fitting = std::ranges::find_if(
        shared_->free_pinned, [bytes](const auto& block) { return block.bytes >= bytes; });
    if (fitting != shared_->free_pinned.end()) {
      taken = std::move(*fitting);
      shared_->free_pinned.erase(fitting);
    }
  }
  if (!taken.memory) taken.memory = make_pinned_memory(taken.bytes);
  std::byte* const address = taken.memory.get();
  const auto give_back = [pool = std::weak_ptr(shared_), taken](std::byte*) {
    const std::shared_ptr<Shared> shared = pool.lock();
    if (!shared) return;
    const std::scoped_lock lock(shared->mutex);
    shared->free_pinned.push_back(taken);
  };
  return {address, give_back};
}

Tensor StagedCopies::to_host(const TensorView& tensor) {
  const std::size_t bytes = span_bytes(tensor);
  Tensor copy{tensor, take_pinned(bytes)};
  copy.view.data = copy.storage.get();
  if (bytes == 0) return copy;
  check_cuda(
      cudaMemcpyAsync(copy.view.data, tensor.data, bytes, cudaMemcpyDefault, shared_->stream.get()),
      "copy a tensor to the host");
  return copy;
}

std::optional<Tensor> StagedCopies::to_host(const std::optional<TensorView>& tensor) {
  if (!tensor) return std::nullopt;
  return to_host(*tensor);
}

void StagedCopies::copy_to_host(const TensorView& host, const TensorView& device) {
  if (device.num_bytes() == 0) return;
  check_cuda(cudaMemcpyAsync(host.data, device.data, device.num_bytes(), cudaMemcpyDefault,
                             shared_->stream.get()),
             "copy a tensor to the host");
}

void StagedCopies::await() const {
  check_cuda(cudaStreamSynchronize(shared_->stream.get()), "wait for copies");
}

Tensor StagedCopies::make(const TensorView& like) {
  void* memory = nullptr;
  const std::size_t bytes = std::max<std::size_t>(span_bytes(like), 1);
  check_cuda(cudaMallocAsync(&memory, bytes, shared_->stream.get()), "allocate a tensor");
  Tensor tensor{like, nullptr};
  tensor.view.data = memory;
  tensor.storage = std::shared_ptr<void>(memory, [shared = shared_, device = device_](void* block) {
    const DeviceScope scope(device);
    shared->give_back(block);
  });
  return tensor;
}

Tensor StagedCopies::to_device(const Tensor& tensor) {
  if (!tensor.defined()) return {};
  Tensor copy = make(tensor.view);
  copy_to(copy.view, tensor.view);
  return copy;
}

std::optional<Tensor> StagedCopies::to_device(const std::optional<Tensor>& tensor) {
  if (!tensor) return std::nullopt;
  return to_device(*tensor);
}

void StagedCopies::copy_to(const TensorView& device, const TensorView& host) {
  copy_rows_to(device.data, host.data, span_bytes(host));
}

void StagedCopies::copy_rows_to(void* device, const void* host, std::size_t bytes) {
  if (bytes == 0) return;
  check_cuda(cudaMemcpyAsync(device, host, bytes, cudaMemcpyDefault, shared_->stream.get()),
             "copy a tensor to the GPU");
}

Event StagedCopies::end(const StreamOptions& options) {
  await();  // memory of the host may be used again as soon as the call returns
  CudaEvent done = CudaEvent::make();
  check_cuda(cudaEventRecord(done.get(), shared_->stream.get()), "record an event");
  if (options.completion == Completion::kAsync)
    return Event(std::make_shared<StagedEvent>(std::move(done)));
  check_cuda(cudaStreamWaitEvent(static_cast<cudaStream_t>(options.cuda_stream), done.get(), 0),
             "make a stream wait");
  return {};
}

}  // namespace moelink
