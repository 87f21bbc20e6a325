// Copies of tensors between a GPU and the host, in the order of the caller's streams.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "base/cuda/owners.hpp"
#include "moelink/config.hpp"
#include "moelink/event.hpp"
#include "moelink/types.hpp"

namespace moelink {

inline std::optional<TensorView> maybe_view(const std::optional<Tensor>& tensor) {
  if (!tensor) return std::nullopt;
  return tensor->view;
}

// All copies of a buffer run on one stream of its own. Called by one thread at a time, but for the
// release of tensors.
class StagedCopies {
 public:
  explicit StagedCopies(int device);

  // Copies of this call come behind what the caller has enqueued (or behind previous_event alone).
  // Throws Error(kUnsupported) while the caller's stream captures a graph.
  void begin(const StreamOptions& options);
  // A copy in pinned memory, complete after await(); keeps the strides. It lives as long as the
  // result.
  Tensor to_host(const TensorView& tensor);
  std::optional<Tensor> to_host(const std::optional<TensorView>& tensor);
  // Into memory of the host that is there already; both contiguous, of the same shape.
  void copy_to_host(const TensorView& host, const TensorView& device);
  // Blocks until all copies so far are complete.
  void await() const;

  // Memory of the GPU for a tensor of this shape; it is given back in the order of the streams.
  Tensor make(const TensorView& like);
  Tensor to_device(const Tensor& tensor);
  std::optional<Tensor> to_device(const std::optional<Tensor>& tensor);
  // Into memory of the GPU that is there already; both have the same shape and strides.
  void copy_to(const TensorView& device, const TensorView& host);
  void copy_rows_to(void* device, const void* host, std::size_t bytes);

  // The caller's stream (with kAsync: the event) waits for the copies of the call.
  Event end(const StreamOptions& options);

 private:
  struct Shared;  // also held by tensors, which may outlive the buffer

  std::shared_ptr<std::byte> take_pinned(std::size_t bytes);

  int device_;
  std::shared_ptr<Shared> shared_;
  CudaEvent fork_;
};

}  // namespace moelink
