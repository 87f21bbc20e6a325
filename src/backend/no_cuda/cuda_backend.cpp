// Stands in for the CUDA backend in builds without it.
#include "backend/backend.hpp"
#include "base/check.hpp"

namespace moelink {

std::unique_ptr<Backend> make_cuda_backend(const Group& group, const BufferConfig& config) {
  fail(ErrorCode::kUnsupported,
       "Buffer (rank {}): device is cuda:{}, but this build of Moelink has no CUDA backend: build "
       "it "
       "with -DMOELINK_CUDA=ON",
       group.rank().value(), config.device.index);
}

}  // namespace moelink
