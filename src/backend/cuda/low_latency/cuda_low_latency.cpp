// Opening the area, and the host's count of operations.
#include "backend/cuda/low_latency/cuda_low_latency.hpp"

#include <algorithm>

#include "backend/cuda/cuda_context.hpp"
#include "backend/cuda/host_exchange.hpp"
#include "base/check.hpp"
#include "base/cuda/check.hpp"

namespace moelink {
namespace {

constexpr const char* kOpening = "open the low latency area";

template <class T>
void copy_to_device(T* to, const T* from, std::size_t count) {
  check_cuda(cudaMemcpy(to, from, count * sizeof(T), cudaMemcpyHostToDevice), kOpening);
}

std::uint64_t read_epoch(const CudaContext& context) {
  std::uint64_t epoch = 0;
  check_cuda(
      cudaMemcpy(&epoch, &context.low_latency.state->epoch, sizeof(epoch), cudaMemcpyDeviceToHost),
      kOpening);
  return epoch;
}

void require_openable(const CudaContext& context) {
  if (context.is_captured()) {
    fail(
        ErrorCode::kInvalidArgument,
        "low latency (rank {}): the first call of a shape (num_max_tokens_per_rank, hidden, top-k) "
        "cannot be captured in a graph: make one before the capture",
        context.rank.value());
  }
  if (context.low_latency.num_outstanding->load() > 1) {
    fail(ErrorCode::kInvalidArgument,
         "low latency (rank {}): the shape changes while an operation is outstanding: call its "
         "hook first",
         context.rank.value());
  }
}

// Ranks that were left out for a while have counted differently: all go on from the largest number,
// as if everything up to it had been received.
void agree_on_epoch(const CudaContext& context, const HostExchange& exchange) {
  std::uint64_t epoch = 0;
  for (std::size_t rank = 0; rank < exchange.blocks.size(); ++rank) {
    if (!exchange.present[rank]) continue;
    epoch = std::max(epoch, exchange.blocks[rank].low_latency_epoch.value());
  }
  copy_to_device(&context.low_latency.state->epoch, &epoch, 1);
  const std::uint64_t received = SignalValue::of(Epoch(epoch), kDone).word();
  for (const Epoch half : {Epoch(0), Epoch(1)}) {
    for (Rank peer(0); peer.value() < context.num_ranks(); peer = peer.next()) {
      std::byte* const word =
          context.memory->local() +
          context.layout.signal_offset(low_latency_received_channel(half), peer);
      copy_to_device(reinterpret_cast<std::uint64_t*>(word), &received, 1);
    }
  }
}

// What has been sent so far can no longer be received.
void give_up_operations(CudaLowLatency& low_latency) {
  low_latency.received = {low_latency.num_sent, low_latency.num_sent};
  low_latency.num_void = low_latency.num_sent;
}

ExchangeBlock describe_area(const CudaContext& context, const LineArea& area, const void* block) {
  ExchangeBlock mine{};
  const auto set = [&mine](DigestField field, auto value) {
    mine.digest.set(field, static_cast<std::int64_t>(value));
  };
  set(DigestField::kHiddenBytes, area.hidden * 2);
  set(DigestField::kNumTopk, area.num_topk);
  set(DigestField::kMaxTokens, area.max_tokens);
  mine.spans[0] = WireSpan{context.arena->offset_of(block), area.total_bytes()};
  mine.low_latency_epoch = Epoch(read_epoch(context));
  return mine;
}

}  // namespace

std::vector<std::uint32_t> CudaLowLatency::read_masks(int num_ranks) const {
  std::vector<std::uint32_t> masks(static_cast<std::size_t>(num_ranks));
  check_cuda(
      cudaMemcpy(masks.data(), masked, masks.size() * sizeof(masks[0]), cudaMemcpyDeviceToHost),
      "read which ranks are masked");
  return masks;
}

CudaOutstandingSlot::CudaOutstandingSlot(const CudaContext& context, Operation operation)
    : count_(context.low_latency.num_outstanding) {
  if (count_->fetch_add(1) < kMaxOutstandingLowLatency) return;
  count_->fetch_sub(1);
  fail(ErrorCode::kInvalidArgument,
       "{} (rank {}): {} low latency operations are outstanding, expected fewer: call the hook of "
       "an earlier one first",
       operation_name(operation), context.rank.value(), kMaxOutstandingLowLatency);
}

void ensure_line_area(CudaContext& context, int max_tokens, int num_topk, std::size_t hidden) {
  CudaLowLatency& low_latency = context.low_latency;
  const int ranks = context.num_ranks();
  const LineArea area{.format = low_latency.line_format,
                      .num_ranks = ranks,
                      .max_local_experts = (context.max_num_experts + ranks - 1) / ranks,
                      .max_tokens = max_tokens,
                      .num_topk = num_topk,
                      .hidden = hidden};
  if (low_latency.block && low_latency.area == area) return;
  require_openable(context);
  context.order->synchronize();
  low_latency.block.reset();  // until the ranks agree, no area is open
  std::shared_ptr<void> block = context.allocate(area.total_bytes());
  check_cuda(cudaMemset(block.get(), 0, area.total_bytes()), kOpening);
  check_cuda(cudaDeviceSynchronize(), kOpening);  // peers write there as soon as they know it
  const HostExchange exchange =
      exchange_on_host(context, Operation::kOpen, describe_area(context, area, block.get()));
  std::vector<std::byte*> areas(static_cast<std::size_t>(ranks));
  for (Rank peer(0); peer.value() < ranks; peer = peer.next()) {
    if (!exchange.present[peer.index()]) continue;
    areas[peer.index()] =
        context.memory->region(peer) + exchange.blocks[peer.index()].spans[0].offset;
  }
  copy_to_device(low_latency.areas, areas.data(), areas.size());
  agree_on_epoch(context, exchange);
  give_up_operations(low_latency);
  low_latency.block = std::move(block);
  low_latency.area = area;
}

void clean_line_area(CudaContext& context) {
  context.order->synchronize();
  ExchangeBlock mine{};
  mine.low_latency_epoch = Epoch(read_epoch(context));
  agree_on_epoch(context, exchange_on_host(context, Operation::kBarrier, mine));
  give_up_operations(context.low_latency);
}

std::uint64_t begin_low_latency(CudaContext& context, Operation operation) {
  CudaLowLatency& low_latency = context.low_latency;
  const std::uint64_t number = low_latency.num_sent + 1;
  const std::uint64_t last_user =
      number > low_latency.num_void + kNumLowLatencyHalves ? number - kNumLowLatencyHalves : 0;
  if (low_latency.received[number % kNumLowLatencyHalves] < last_user) {
    fail(ErrorCode::kInvalidArgument,
         "{} (rank {}): the operation before the last is still outstanding: call its hook first",
         operation_name(operation), context.rank.value());
  }
  low_latency.num_sent = number;
  return number;
}

kernels::LowLatencyLink low_latency_link(const CudaContext& context, int num_experts,
                                         const TensorView& topk_idx, const float* topk_weights) {
  const CudaLowLatency& low_latency = context.low_latency;
  kernels::LowLatencyLink link;
  link.domain = context.domain;
  link.area = low_latency.area;
  link.areas = low_latency.areas;
  link.state = low_latency.state;
  link.masked = low_latency.masked;
  link.survival = context.survival;
  link.num_experts = num_experts;
  link.num_local = num_experts / context.num_ranks();
  link.header.num_experts = static_cast<std::uint32_t>(num_experts);
  link.num_tokens = static_cast<int>(topk_idx.shape[0]);
  link.topk.ids = topk_idx.data;
  link.topk.weights = topk_weights;
  link.topk.num_topk = static_cast<std::int32_t>(topk_idx.shape[1]);
  link.topk.id_bytes = static_cast<std::int32_t>(dtype_size(topk_idx.dtype));
  return link;
}

int low_latency_blocks(const CudaContext& context, const StreamOptions& options) {
  if (options.num_workers <= 0) return context.limits.num_free_blocks;
  return std::min(options.num_workers, context.limits.num_free_blocks);
}

}  // namespace moelink
