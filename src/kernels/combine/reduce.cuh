// Adding up rows piece by piece while further ones are on their way.
#pragma once

#include <cstdint>

#include "device/codec.cuh"
#include "device/piece_pipe.cuh"
#include "kernels/combine/ring.cuh"
#include "kernels/combine/roles.hpp"

namespace moelink::kernels {

using PullPipe = device::PiecePipe<kNumPullStages>;

// The sums of one piece, spread over the lanes of a warp: vector v belongs to lane v % 32.
template <class Codec, int kVectors>
struct PieceSums {
  float values[kVectors][Codec::kPerVector];

  __device__ void clear() {
#pragma unroll
    for (auto& vector : values) {
#pragma unroll
      for (float& value : vector) value = 0.0F;
    }
  }
  __device__ void add(const std::byte* piece, std::uint32_t bytes) {
    const auto* const vectors = reinterpret_cast<const uint4*>(piece);
    for_each_vector(bytes, [&](int i, std::uint32_t at) { Codec::add(values[i], vectors[at]); });
  }
  __device__ void add_rounded(const PieceSums& lower) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
#pragma unroll
      for (int j = 0; j < Codec::kPerVector; ++j) values[i][j] += Codec::round(lower.values[i][j]);
    }
  }
  __device__ void store(std::byte* piece, std::uint32_t bytes) const {
    auto* const vectors = reinterpret_cast<uint4*>(piece);
    for_each_vector(bytes, [&](int i, std::uint32_t at) { vectors[at] = Codec::pack(values[i]); });
  }

 private:
  template <class Visit>
  static __device__ void for_each_vector(std::uint32_t bytes, const Visit& visit) {
    const std::uint32_t count = bytes / 16;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const std::uint32_t at = threadIdx.x % warpSize + static_cast<unsigned>(i * warpSize);
      if (at < count) visit(i, at);
    }
  }
};

// Adds the addends of one piece. With nodes, those of a node are rounded before they join the sum.
template <class Shape>
class PieceReduction {
 public:
  __device__ void start() {
    sums_.clear();
    node_ = Node(-1);
    if constexpr (kNodes) of_node_.clear();
  }
  // Before the first add().
  __device__ void add_bias(const std::byte* piece, std::uint32_t bytes) { sums_.add(piece, bytes); }
  __device__ void add(Node node, const std::byte* piece, std::uint32_t bytes) {
    if constexpr (kNodes) {
      if (node != node_) close_node();
      node_ = node;
      of_node_.add(piece, bytes);
    } else {
      sums_.add(piece, bytes);
    }
  }
  __device__ void finish(std::byte* out, std::uint32_t bytes) {
    if constexpr (kNodes) close_node();
    sums_.store(out, bytes);
  }

 private:
  __device__ void close_node() {
    sums_.add_rounded(of_node_);
    of_node_.clear();
  }

  using Codec = typename Shape::Codec;
  static constexpr bool kNodes = Shape::kNodes;
  static constexpr int kVectors = Shape::kMaxPieceBytes / sizeof(uint4) / 32;

  PieceSums<Codec, kVectors> sums_;
  PieceSums<Codec, kNodes ? kVectors : 1> of_node_;  // used with kNodes only
  Node node_;
};

// What a warp is to add up: output pieces in order, each with its addends in order. All lanes run
// it alike. Two copies walk along it: one starts the loads, as far ahead as the pipe reaches, the
// other adds. A Work has
//   done(), advance()      whether there is a further output piece, and the way to it
//   is_ready(Patience)     whether its addends may be loaded; asked by the copy that loads
//   next_source(address)   the next addend of the piece; false: no further one
//   next_node(node)        the same for the copy that adds
//   begin(), end()         called by that copy before a piece, and after the last; false: give up
//   bytes(), out(), bias(i)
template <class Work>
class LoadAhead {
 public:
  __device__ LoadAhead(const Work& work, std::uint32_t step) : work_(work), num_loaded_(step) {}

  // Has the piece of `step` loaded, and further ones if they can be had without waiting. False if
  // the piece cannot be had at all.
  __device__ bool provide(PullPipe& pipe, std::uint32_t step) {
    fill(pipe, step);
    if (num_loaded_ > step) return true;
    if (!load_one(pipe, Patience::kUntilDeadline)) return false;
    fill(pipe, step);
    return true;
  }
  // Waits for what is on its way from `step` on, which then is of no use.
  __device__ bool abandon(PullPipe& pipe, std::uint32_t step) const {
#pragma unroll 1
    for (; step < num_loaded_; ++step) pipe.await(step);
    return false;
  }

 private:
  __device__ void fill(PullPipe& pipe, std::uint32_t step) {
#pragma unroll 1
    while (num_loaded_ < step + kNumPullStages - 1) {
      if (load_one(pipe, Patience::kLookOnce)) continue;
      for (int i = 0; i < kNumPullStages - 2; ++i) pipe.load(num_loaded_, nullptr, 0);
      return;
    }
  }
  __device__ bool load_one(PullPipe& pipe, Patience patience) {
#pragma unroll 1
    for (; !work_.done(); work_.advance()) {
      if (!work_.is_ready(patience)) return false;
      const std::byte* from = nullptr;
      if (!work_.next_source(from)) continue;
      pipe.load(num_loaded_++, from, work_.bytes());
      return true;
    }
    return false;
  }

  Work work_;
  std::uint32_t num_loaded_;
};

// One warp. `step`: of the pipe, goes on from call to call. False: given up, with no load under
// way.
template <class Shape, class Work>
__device__ bool reduce_rows(Work work, PullPipe& pipe, std::uint32_t& step) {
  LoadAhead<Work> ahead(work, step);
  PieceReduction<Shape> reduction;
#pragma unroll 1
  for (; !work.done(); work.advance()) {
    if (!work.begin()) return ahead.abandon(pipe, step);
    const std::uint32_t bytes = work.bytes();
    reduction.start();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (work.bias(i) != nullptr) reduction.add_bias(work.bias(i), bytes);
    }
    Node node(0);
#pragma unroll 1
    while (work.next_node(node)) {
      if (!ahead.provide(pipe, step)) return false;
      pipe.await(step);
      reduction.add(node, pipe.piece(step), bytes);
      ++step;
    }
    reduction.finish(work.out(), bytes);
  }
  return work.end();
}

}  // namespace moelink::kernels
