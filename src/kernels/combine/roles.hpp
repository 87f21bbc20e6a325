// Which warps of a combine block do what.
#pragma once

#include <cstddef>

#include "moelink/host_device.hpp"

namespace moelink::kernels {

struct CombineRoles {
  static constexpr int kNumWarps = 16;
  static constexpr int kNumThreads = 32 * kNumWarps;
  // Warps of a block that stage, the last ones, where no further blocks do so.
  static constexpr int kNumStageWarps = 4;
};

// The warps of a grid that have one role; each takes every num_warps-th piece of the rows. Planned
// on the host, so that no thread has to divide or to keep it.
struct WarpCrew {
  int num_warps = 0;
  int row_step = 0;  // from piece to piece of a warp: whole rows, and pieces of a row
  int piece_step = 0;

  static WarpCrew make(int num_warps, int pieces_per_row) {
    return {num_warps, num_warps / pieces_per_row, num_warps % pieces_per_row};
  }
};

// A warp sums a row piece by piece; the sums of a piece stay in registers, twice as many if those
// of a node are rounded apart. As much as fits the registers on every GPU.
MOELINK_HD constexpr std::size_t max_piece_bytes(bool nodes, bool stages) {
  if (nodes) return stages ? 1536 : 2048;
  return 3584;
}

// What an instance of the kernel is made for. kNodes: sums of nodes are rounded. kStages: this
// rank's rows pass through a ring.
template <class CodecType, bool kWithNodes, bool kWithStaging>
struct CombineShape {
  using Codec = CodecType;
  static constexpr bool kNodes = kWithNodes;
  static constexpr bool kStages = kWithStaging;
  static constexpr std::size_t kMaxPieceBytes = max_piece_bytes(kNodes, kStages);
};

// How such an instance adds up the rows of one rank: in one level, in pieces of the same size.
template <class Shape>
struct StagingShape : Shape {
  static constexpr bool kNodes = false;
};

// Pieces in flight for each warp.
inline constexpr int kNumPullStages = 3;

}  // namespace moelink::kernels
