// One warp carries rows, piece by piece, to wherever each goes.
#pragma once

#include <cstdint>

#include "device/piece_pipe.cuh"

namespace moelink::kernels {

// Rows first, first + stride, ... below end, each cut into pieces of chunk_bytes.
struct RowPieces {
  int first;
  int stride;
  int end;
  std::size_t row_bytes;
  std::size_t chunk_bytes;
};

class PieceCursor {
 public:
  __device__ explicit PieceCursor(const RowPieces& pieces) : pieces_(pieces), row_(pieces.first) {}

  __device__ bool done() const { return row_ >= pieces_.end; }
  __device__ void advance() {
    offset_ += pieces_.chunk_bytes;
    if (offset_ < pieces_.row_bytes) return;
    offset_ = 0;
    row_ += pieces_.stride;
  }
  __device__ int row() const { return row_; }
  __device__ std::size_t offset() const { return offset_; }
  __device__ std::size_t bytes() const {
    const std::size_t left = pieces_.row_bytes - offset_;
    return left < pieces_.chunk_bytes ? left : pieces_.chunk_bytes;
  }

 private:
  const RowPieces& pieces_;
  int row_;
  std::size_t offset_ = 0;
};

// One warp. `now`: a cursor at the first piece. `source(row)` is where a row lies; `put_row(step,
// row, offset, bytes)` puts one of its pieces to wherever it goes. `step`: of the pipe; returns the
// step that follows. When it returns, all has arrived, see PiecePipe::drain().
template <int kStages, class Cursor, class Source, class PutRow>
__device__ std::uint32_t carry_rows(device::PiecePipe<kStages>& pipe, std::uint32_t step,
                                    Cursor now, const Source& source, const PutRow& put_row) {
  Cursor ahead = now;
  std::uint32_t next_step = step;
  const auto load = [&] {
    const bool exists = !ahead.done();
    const std::byte* const from = exists ? source(ahead.row()) + ahead.offset() : nullptr;
    pipe.load(next_step, from, exists ? ahead.bytes() : 0);
    if (!exists) return;
    ++next_step;
    ahead.advance();
  };
#pragma unroll 1
  for (int i = 0; i < kStages - 1; ++i) load();
#pragma unroll 1
  for (; !now.done(); now.advance()) {
    pipe.await(step);
    put_row(step, now.row(), now.offset(), now.bytes());
    pipe.commit();
    ++step;
    load();
  }
  pipe.drain();
  return step;
}

}  // namespace moelink::kernels
