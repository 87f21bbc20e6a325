// Forks from the caller's stream and joins it again by events.
#include "backend/cuda/stream_order.hpp"

#include "backend/event_state.hpp"

namespace moelink {
namespace {

class CudaEventState final : public EventState {
 public:
  CudaEventState(CudaEvent event, std::shared_ptr<const FaultCheck> faults, Epoch epoch)
      : event_(std::move(event)), faults_(std::move(faults)), epoch_(epoch) {}

  cudaEvent_t get() const { return event_.get(); }
  bool pending() const override {
    const bool not_ready = cudaEventQuery(event_.get()) == cudaErrorNotReady;
    cudaGetLastError();  // neither "not ready" nor "captured" is an error of a later call
    return not_ready;
  }
  void wait() const override {
    check_cuda(cudaEventSynchronize(event_.get()), "wait for an event");
    faults_->throw_if_raised(epoch_);
  }
  void wait_on(void* cuda_stream) const override {
    check_cuda(cudaStreamWaitEvent(static_cast<cudaStream_t>(cuda_stream), event_.get(), 0),
               "make a stream wait for an event");
  }

 private:
  CudaEvent event_;
  std::shared_ptr<const FaultCheck> faults_;
  Epoch epoch_;
};

void wait_on_stream(cudaStream_t stream, const CudaEvent& event) {
  check_cuda(cudaStreamWaitEvent(stream, event.get(), 0), "make a stream wait");
}

void record(const CudaEvent& event, cudaStream_t stream) {
  check_cuda(cudaEventRecord(event.get(), stream), "record an event");
}

void synchronize_on(const CudaEvent& event) {
  check_cuda(cudaEventSynchronize(event.get()), "wait for an operation");
}

}  // namespace

StreamOrder::StreamOrder(StreamUse use)
    : use_(use),
      own_(CudaStream::make()),
      fork_(CudaEvent::make()),
      tail_(CudaEvent::make()),
      released_(CudaEvent::make()) {
  // Streams come into being with their first use: not while peers' kernels run.
  check_cuda(cudaStreamSynchronize(cudaStreamPerThread), "make the thread's stream");
  record(tail_, own_.get());
  synchronize_on(tail_);
}

bool StreamOrder::blocks_host(const StreamOptions& options) const {
  return use_ == StreamUse::kOwn && options.cuda_stream == nullptr;
}

std::uint64_t StreamOrder::capture_of(const StreamOptions& options) const {
  if (blocks_host(options)) return 0;
  return moelink::capture_of(static_cast<cudaStream_t>(options.cuda_stream));
}

cudaStream_t StreamOrder::begin(const StreamOptions& options) {
  auto* const caller = static_cast<cudaStream_t>(options.cuda_stream);
  const bool on_own = blocks_host(options) || options.completion == Completion::kAsync ||
                      static_cast<bool>(options.previous_event);
  cudaStream_t const stream = on_own ? own_.get() : caller;
  const bool captured = capture_of(options) != 0;
  {
    const std::lock_guard lock(mutex_);
    last_caller_ = blocks_host(options) ? stream : caller;
  }
  if (options.previous_event) {
    options.previous_event.wait_on(stream);
  } else if (blocks_host(options)) {
    check_cuda(cudaStreamSynchronize(cudaStreamPerThread), "wait for the calling thread's stream");
  } else if (on_own) {
    record(fork_, caller);
    wait_on_stream(stream, fork_);
  }
  // Work outside a graph cannot be waited for inside it: its launch comes after that work anyway.
  if (!captured) {
    if (has_tail_ && stream != launched_on_) wait_on_stream(stream, tail_);
    wait_for_release(stream);
  }
  launched_on_ = stream;
  return stream;
}

Event StreamOrder::end(const StreamOptions& options, std::shared_ptr<const FaultCheck> faults,
                       Epoch epoch) {
  auto* const caller = static_cast<cudaStream_t>(options.cuda_stream);
  const bool captured = is_capturing(launched_on_);
  if (options.completion == Completion::kAsync) {
    CudaEvent done = CudaEvent::make();
    record(done, launched_on_);
    if (!captured) record(tail_, launched_on_);
    has_tail_ = has_tail_ || !captured;
    return Event(std::make_shared<CudaEventState>(std::move(done), std::move(faults), epoch));
  }
  record(tail_, launched_on_);
  has_tail_ = !captured;
  if (!blocks_host(options) && launched_on_ != caller) wait_on_stream(caller, tail_);
  return {};
}

void StreamOrder::await_results(const StreamOptions& options) const {
  if (options.completion == Completion::kSync && blocks_host(options)) synchronize();
}

void StreamOrder::wait_for_release(cudaStream_t stream) {
  const std::lock_guard lock(mutex_);
  if (!has_release_) return;
  if (stream != last_caller_) wait_on_stream(stream, released_);
  has_release_ = false;
}

void StreamOrder::note_release() noexcept {
  const std::lock_guard lock(mutex_);
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  // A graph's memory is held by whoever holds the graph.
  if (cudaStreamIsCapturing(last_caller_, &status) != cudaSuccess ||
      status != cudaStreamCaptureStatusNone) {
    cudaGetLastError();
    return;
  }
  has_release_ = cudaEventRecord(released_.get(), last_caller_) == cudaSuccess;
}

void StreamOrder::synchronize() const {
  if (has_tail_) synchronize_on(tail_);
}

}  // namespace moelink
