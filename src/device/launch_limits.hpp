// How much of a GPU the kernels of one rank may use.
#pragma once

#include <cstddef>

namespace moelink::device {

struct LaunchLimits {
  // Blocks of kernels whose blocks wait for one another or for peers: all of them, of all ranks on
  // the GPU, must be resident at once.
  int num_waiting_blocks = 1;
  // Blocks of kernels that only copy or add.
  int num_free_blocks = 1;
  std::size_t shared_bytes_per_block = 0;  // most dynamic shared memory of a block
};

}  // namespace moelink::device
