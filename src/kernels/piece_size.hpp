// How rows are cut into pieces that pass through shared memory.
#pragma once

#include <algorithm>
#include <cstddef>

#include "protocol/limits.hpp"

namespace moelink::kernels {

struct PieceSize {
  std::size_t num_chunks = 1;  // of a row
  std::size_t chunk_bytes = 0;

  // As equal as granules allow, at most `most` bytes each, and so that `num_pieces` of them fit
  // into `room` bytes.
  static PieceSize fit(std::size_t row_bytes, std::size_t most, std::size_t num_pieces,
                       std::size_t room) {
    const std::size_t fitting = room / num_pieces / kRowGranuleBytes * kRowGranuleBytes;
    const std::size_t limit = std::min(most, fitting);
    PieceSize size;
    size.num_chunks = std::max<std::size_t>(1, (row_bytes + limit - 1) / limit);
    size.chunk_bytes =
        align_up((row_bytes + size.num_chunks - 1) / size.num_chunks, kRowGranuleBytes);
    return size;
  }
};

}  // namespace moelink::kernels
