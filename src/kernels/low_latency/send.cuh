// Role send: a block quantises a token and sends it once to each of its ranks.
#pragma once

#include <cstdint>

#include "device/quantize.cuh"
#include "kernels/low_latency/control.cuh"
#include "kernels/low_latency/flow.cuh"
#include "kernels/low_latency/route.cuh"

namespace moelink::kernels {

constexpr std::size_t kChannelsPerVector = 8;

// One token on its way, in shared memory: scales and payload, and a header per target.
struct TokenImage {
  TokenTargets* targets;
  std::byte* headers;  // [targets, RowHeader::bytes(K)]
  std::byte* body;     // RowBody, and a line more that may be read but means nothing
};

// The calling thread's vectors of a row of x: those with index thread, thread + block size, ...
class HeldRow {
 public:
  // Starts loading the first two.
  __device__ void load(const std::byte* row, int count) {
    vectors_ = reinterpret_cast<const uint4*>(row) + threadIdx.x;
    left_ = count - static_cast<int>(threadIdx.x);
    this_ = load_next();
    next_ = load_next();
  }
  __device__ const uint4& get() const { return this_; }
  // Goes on to the next one, and starts loading the one after it.
  __device__ void advance() {
    this_ = next_;
    next_ = load_next();
  }

 private:
  __device__ uint4 load_next() {
    const uint4 vector = left_ > 0 ? *vectors_ : make_uint4(0, 0, 0, 0);
    vectors_ += LowLatencyRoles::kNumThreads;
    left_ -= LowLatencyRoles::kNumThreads;
    return vector;
  }

  const uint4* vectors_;
  int left_;
  uint4 this_;
  uint4 next_;
};

// All lanes of a warp: quantises vector `v` of a row of `count` into the body.
__device__ inline void store_quantised(ScaleFormat format, const uint4& vector, int v, int count,
                                       std::byte* body, std::byte* payload) {
  const BlockScale scale = device::scale_of_block(vector, format);
  if (v >= count) return;
  reinterpret_cast<uint2*>(payload)[v] = device::quantize_vector(vector, scale.inverse);
  if (v % device::kLanesPerBlock != 0) return;
  const int block = v / device::kLanesPerBlock;
  if (format == ScaleFormat::kPackedUE8M0) {
    reinterpret_cast<std::uint8_t*>(body)[block] =
        static_cast<std::uint8_t>(ue8m0_byte(scale.stored));
  } else {
    reinterpret_cast<float*>(body)[block] = scale.stored;
  }
}

// All threads of a block: quantises the row, or copies it, into the body.
__device__ inline void store_body(const LowLatencyLink& link, HeldRow& row, std::byte* body) {
  const int count = static_cast<int>(link.area.hidden / kChannelsPerVector);
  std::byte* const payload = body + (link.lines.body_start - link.lines.header_bytes);
#pragma unroll 1
  for (int first = 0; first < count; first += LowLatencyRoles::kNumThreads) {
    const int v = first + static_cast<int>(threadIdx.x);
    const uint4 vector = row.get();
    row.advance();
    if (link.header.format != kWireBFloat16) {
      store_quantised(static_cast<ScaleFormat>(link.header.format - 1), vector, v, count, body,
                      payload);
    } else if (v < count) {
      reinterpret_cast<uint2*>(payload)[2 * v] = make_uint2(vector.x, vector.y);
      reinterpret_cast<uint2*>(payload)[2 * v + 1] = make_uint2(vector.z, vector.w);
    }
  }
}

// All threads of a block: sends the image to its targets.
template <class Line>
__device__ void send_image(const LowLatencyLink& link, Epoch epoch, const TokenImage& image) {
  const LinePlan& lines = link.lines;
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const int first_row = link.domain.rank.value() * link.area.max_tokens;
#pragma unroll 1
  for (int target = 0; target < image.targets->count; ++target) {
    const std::byte* const header =
        image.headers + static_cast<unsigned>(target) * lines.header_bytes;
    const std::byte* const body = image.body - lines.header_bytes;
    const auto word = [&](std::uint32_t at) {
      const std::byte* const from = at < lines.header_bytes ? header : body;
      return *reinterpret_cast<const std::uint64_t*>(from + at);
    };
    auto* const row =
        reinterpret_cast<uint4*>(link.area_of(Rank(image.targets->rank[target])) +
                                 lines.row_offset(epoch, first_row + image.targets->slot[target]));
    // Each warp has the same vectors of all targets.
#pragma unroll 1
    for (int v = static_cast<int>(threadIdx.x / warpSize) * warpSize + lane; v < lines.row_vectors;
         v += LowLatencyRoles::kNumThreads) {
      const LineWords words = words_of_vector(Line::kFormat, v);
      const std::uint64_t second = words.has_second ? word(words.first + kLineWordBytes) : 0;
      device::store_vector(row + v, Line::seal(word(words.first), second, v, epoch));
    }
  }
}

// All threads of a block: sends tokens `begin` to `end`. One warp describes a token while the
// others quantise it.
template <class Line>
__device__ void send_tokens(const LowLatencyDispatchParams& params, Epoch epoch, int begin, int end,
                            const ControlBoard& counts, const TokenImage& image) {
  const LowLatencyLink& link = params.link;
  const std::size_t row_bytes = link.area.hidden * 2;
  const int count = static_cast<int>(link.area.hidden / kChannelsPerVector);
  const bool describes = threadIdx.x / warpSize == LowLatencyRoles::kNumWarps - 1;
  HeldRow row;
  TokenChoice chosen{};
  // Arrives while the token before is on its way, or the counts are made.
  const auto read = [&](int token) {
    if (token >= end) return;
    row.load(params.x + static_cast<std::size_t>(token) * row_bytes, count);
    if (describes) chosen = read_choice(link, token);
  };
  read(begin);
  if (begin < end) count_tokens_before(link, begin, counts);
  device::pass_stage(link.domain, Stage::kCount, epoch);
  if (!may_send(link, epoch)) return;
  device::pass_stage(link.domain, Stage::kExchange, epoch);
#pragma unroll 1
  for (int token = begin; token < end; ++token) {
    if (describes) {
      describe_token(link, token, chosen, counts, *image.targets, image.headers);
    }
    store_body(link, row, image.body);
    read(token + 1);
    __syncthreads();
    if (token == begin && blockIdx.x == 0) device::note_end(link.domain, Stage::kPlace);
    send_image<Line>(link, epoch, image);
    __syncthreads();
  }
}

// Selections that ids which repeat within tokens have added up to for one expert may not fit.
__device__ inline bool exceeds_limits(const LowLatencyLink& link, const ControlBoard& counts) {
  bool exceeds = false;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < link.num_ranks() * link.num_local;
       i += LowLatencyRoles::kNumThreads) {
    const int owner = i / link.num_local;
    exceeds = exceeds || counts.count(owner, i - owner * link.num_local) > link.area.max_tokens;
  }
  return exceeds;
}

// All threads of a block: counts all tokens and tells every rank about those for it.
template <class Line>
__device__ void announce_tokens(const LowLatencyLink& link, Epoch epoch,
                                const ControlBoard& board) {
  const int bad_index = count_tokens_before(link, link.num_tokens, board);
  __syncthreads();
  const bool exceeds = exceeds_limits(link, board);
  const int refused = __syncthreads_or(bad_index >= 0 || exceeds);
  head_controls(link, epoch, refused != 0, board);
  if (!may_send(link, epoch) || !await_rows_sent(link)) return;
  send_controls<Line>(link, epoch, board);  // the peers learn of it before this rank gives up
  __syncthreads();
  if (bad_index >= 0) refuse(link, Refusal::of_id(link, bad_index));
  if (exceeds) refuse(link, Refusal::of_repeats());
}

// All threads of a block: its share of the sending. The last block announces, the others send; a
// block that is alone does both.
template <class Line>
__device__ void send_half(const LowLatencyDispatchParams& params, Epoch epoch,
                          const ControlBoard& board, const TokenImage& image) {
  const int num_blocks = static_cast<int>(gridDim.x);
  const int block = static_cast<int>(blockIdx.x);
  const int num_senders = num_blocks > 1 ? num_blocks - 1 : 1;
  const int tokens = params.link.num_tokens;
  if (block < num_senders) {
    send_tokens<Line>(params, epoch, tokens * block / num_senders,
                      tokens * (block + 1) / num_senders, board, image);
  }
  note_rows_sent(params.link);
  if (block == num_blocks - 1) announce_tokens<Line>(params.link, epoch, board);
}

}  // namespace moelink::kernels
