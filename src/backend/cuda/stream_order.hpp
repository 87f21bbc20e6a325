// On which CUDA stream an operation runs, and in what order with everything else.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "backend/cuda/fault_check.hpp"
#include "base/cuda/owners.hpp"
#include "moelink/config.hpp"

namespace moelink {

// Which streams may carry the waiting kernels of a buffer.
enum class StreamUse {
  kCallers,  // the caller's own stream, where nothing speaks against it: no hand-over, no event
  // The buffer's, unless the caller names a stream, because ranks are threads: their kernels, which
  // wait for one another, must not queue up in a stream that threads share. Without a stream of the
  // caller, a call with kSync blocks the calling thread until its results are there.
  kOwn,
};

// Operations of a buffer run one after another, whatever streams their callers use. Called by one
// thread at a time, except note_release().
class StreamOrder {
 public:
  explicit StreamOrder(StreamUse use);

  // The stream to launch the next operation on: behind the caller's work (or previous_event alone),
  // behind the operation before, and behind the last use of memory that has been given back.
  cudaStream_t begin(const StreamOptions& options);
  // After the launches of operation `epoch`. With kSync the caller's stream waits for them; with
  // kAsync the result is their event, which throws the faults of operations up to this one.
  Event end(const StreamOptions& options, std::shared_ptr<const FaultCheck> faults, Epoch epoch);

  // The caller's capture of a graph, of which the call becomes a part; 0: none.
  std::uint64_t capture_of(const StreamOptions& options) const;

  // The last step of a call, which may block (see kOwn).
  void await_results(const StreamOptions& options) const;

  // Memory has been given back by its last owner, whose kernels may still use it: what has been
  // enqueued so far on the stream of the last caller comes first. Thread-safe.
  void note_release() noexcept;

  // Blocks until all operations launched so far have ended.
  void synchronize() const;

 private:
  bool blocks_host(const StreamOptions& options) const;
  void wait_for_release(cudaStream_t stream);

  StreamUse use_;
  CudaStream own_;
  CudaEvent fork_;  // the caller's work so far
  CudaEvent tail_;  // the last operation
  bool has_tail_ = false;
  cudaStream_t launched_on_ = nullptr;

  std::mutex mutex_;  // guards what follows
  CudaEvent released_;
  bool has_release_ = false;
  cudaStream_t last_caller_ = nullptr;
};

}  // namespace moelink
