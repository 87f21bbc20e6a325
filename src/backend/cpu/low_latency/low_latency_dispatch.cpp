// Sending half of the low latency dispatch, and the tensors of its result.
#include "backend/cpu/low_latency/low_latency_dispatch.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <span>

#include "backend/cpu/arena_tensor.hpp"
#include "backend/cpu/network/low_latency_courier.hpp"
#include "backend/cpu/simd/simd.hpp"
#include "backend/tensor_pack.hpp"
#include "base/check.hpp"
#include "base/trace_scope.hpp"

namespace moelink {
namespace {

constexpr Operation kOperation = Operation::kLowLatencyDispatch;

std::uint32_t wire_format(const LowLatencyDispatchConfig& config) {
  return config.fp8 ? 1 + static_cast<std::uint32_t>(*config.fp8) : kWireBFloat16;
}

// [groups, rows, columns] with the rows of one column next to each other, as grouped GEMMs want
// them.
void make_column_major(TensorView& view) {
  view.strides[1] = 1;
  view.strides[2] = view.shape[1];
}

}  // namespace

LowLatencyDispatch::LowLatencyDispatch(CpuContext& context, LowLatencyContext& low_latency,
                                       const LowLatencyDispatchConfig& config)
    : context_(context),
      low_latency_(low_latency),
      config_(config),
      topk_(config.topk_idx),
      map_(ExpertMap::make(config.num_experts, context.num_ranks())),
      area_{context.num_ranks(), config.num_max_tokens_per_rank, topk_.num_topk(),
            static_cast<std::size_t>(config.x.shape[1])},
      slot_(low_latency, context.rank, kOperation),
      routing_(std::make_shared<LowLatencyRouting>()),
      arrived_(static_cast<std::size_t>(context.num_ranks())) {
  if (context.courier) {
    context.courier->require_fit(kOperation, area_.entry_stride(), wire_row_bytes());
  }
  make_routing_tensors();
  make_row_tensors();
}

std::size_t LowLatencyDispatch::num_scales() const {
  if (!config_.fp8) return 0;
  const std::size_t blocks = area_.hidden / kScaleBlock;
  return *config_.fp8 == ScaleFormat::kPackedUE8M0 ? (blocks + 3) / 4 : blocks;
}

std::atomic_ref<std::uint64_t> LowLatencyDispatch::outbox_epoch(Rank owner) const {
  std::byte* const word = low_latency_.at(context_, owner, area_.outbox_epoch_offset(epoch_));
  return std::atomic_ref(*reinterpret_cast<std::uint64_t*>(word));
}

OutputExtents LowLatencyDispatch::extents() const {
  return OutputExtents::make(config_.layout, context_.num_ranks(), config_.num_experts,
                             config_.num_max_tokens_per_rank);
}

void LowLatencyDispatch::make_routing_tensors() {
  const bool per_expert = config_.layout == LowLatencyLayout::kPerExpert;
  const auto [groups, rows] = extents();
  LowLatencyRouting& routing = *routing_;
  routing.owner = context_.id;
  routing.layout = config_.layout;
  routing.num_tokens = config_.x.shape[0];
  routing.num_max_tokens_per_rank = config_.num_max_tokens_per_rank;
  routing.hidden = config_.x.shape[1];
  routing.num_experts = config_.num_experts;
  routing.num_topk = topk_.num_topk();
  TensorPack pack;
  pack.add(routing.recv_count, DType::kInt32, {groups});
  pack.add(routing.layout_range, DType::kInt64, {groups, context_.num_ranks()});
  pack.add(routing.src_info, DType::kInt32, {groups, rows});
  pack.add(routing.src_topk, DType::kInt32, {groups, rows});
  if (config_.topk_weights && per_expert) {
    pack.add(routing.src_weight, DType::kFloat32, {groups, rows});
  }
  if (!per_expert) {
    pack.add(result_.recv_topk_idx.emplace(), DType::kInt32, {groups, rows, topk_.num_topk()});
    if (config_.topk_weights) {
      pack.add(result_.recv_topk_weights.emplace(), DType::kFloat32,
               {groups, rows, topk_.num_topk()});
    }
  }
  pack.place_in(context_.results->allocate(pack.num_bytes()));
  result_.recv_count = routing.recv_count;
  result_.handle = routing_;
}

void LowLatencyDispatch::make_row_tensors() {
  const auto [groups, rows] = extents();
  const DType dtype = config_.fp8 ? DType::kFloat8E4M3 : DType::kBFloat16;
  result_.recv_x = make_arena_tensor(*context_.results, dtype, {groups, rows, config_.x.shape[1]});
  if (config_.fp8) {
    const bool packed = *config_.fp8 == ScaleFormat::kPackedUE8M0;
    result_.recv_scales =
        make_arena_tensor(*context_.results, packed ? DType::kInt32 : DType::kFloat32,
                          {groups, rows, static_cast<std::int64_t>(num_scales())});
    make_column_major(result_.recv_scales->view);
  }
}

LowLatencyHeader LowLatencyDispatch::header() const {
  LowLatencyHeader header{};
  header.epoch = epoch_.value();
  header.operation = static_cast<std::uint32_t>(kOperation);
  header.format = wire_format(config_);
  header.has_weights = config_.topk_weights ? 1 : 0;
  header.num_experts = static_cast<std::uint32_t>(config_.num_experts);
  return header;
}

void LowLatencyDispatch::send() {
  config_.stream.previous_event.wait();
  routes_ = TokenRoutes(topk_, map_, context_.rank);
  check_repeats();  // before anything is sent

  ensure_area(context_, low_latency_, area_);
  epoch_ = begin_low_latency(context_, low_latency_, kOperation);
  const TraceScope scope(kOperation, Stage::kSend, context_.rank);
  // Acquire and release: no row is written before it. Whoever reads a row of this operation and
  // looks again sees this epoch, or a later one.
  outbox_epoch(context_.rank).exchange(epoch_.value(), std::memory_order_acq_rel);
  std::vector<std::uint32_t> num_sent(static_cast<std::size_t>(context_.num_ranks()));
  for (std::int64_t token = 0; token < topk_.num_tokens(); ++token) send_token(token, num_sent);
  for (Rank peer(0); peer.value() < context_.num_ranks(); peer = peer.next()) {
    if (context_.signals->masks().is_masked(peer)) continue;
    LowLatencyHeader mine = header();
    mine.num_tokens = num_sent[peer.index()];
    if (!context_.control->is_near(peer)) {
      send_far(peer, mine);
      continue;
    }
    const std::size_t offset = area_.message_offset(epoch_, context_.rank);
    std::memcpy(low_latency_.at(context_, peer, offset), &mine, sizeof(mine));
    if (peer != context_.rank) {
      context_.signals->put(peer, SignalChannel::kLowLatencySent, SignalValue::of(epoch_, kDone));
    }
  }
}

void LowLatencyDispatch::check_repeats() const {
  std::vector<std::int32_t> counts(static_cast<std::size_t>(config_.num_experts));
  for (const TokenRoutes::Selection& selection : routes_.all()) {
    if (selection.rank < 0) continue;
    ++counts[map_.global(Rank(selection.rank), LocalExpert(selection.local)).index()];
  }
  for (Expert expert(0); expert.value() < config_.num_experts; expert = expert.next()) {
    const std::int32_t count = counts[expert.index()];
    if (count <= config_.num_max_tokens_per_rank) continue;
    fail(
        ErrorCode::kInvalidArgument,
        "{} (rank {}): topk_idx selects expert {} {} times (ids repeat within tokens), expected at "
        "most num_max_tokens_per_rank={}",
        operation_name(kOperation), context_.rank.value(), expert.value(), count,
        config_.num_max_tokens_per_rank);
  }
}

void LowLatencyDispatch::send_token(std::int64_t token, std::vector<std::uint32_t>& num_sent) {
  bool written = false;
  for (const TokenRoutes::Selection& selection : routes_.of(token)) {
    if (!selection.is_first) continue;
    const Rank owner(selection.rank);
    if (context_.signals->masks().is_masked(owner)) continue;
    if (!written) write_row(token);
    written = true;
    const std::size_t i = num_sent[owner.index()]++;
    if (!context_.control->is_near(owner)) continue;
    const std::size_t offset = area_.entry_offset(epoch_, context_.rank, i);
    write_entry(token, owner,
                reinterpret_cast<std::int32_t*>(low_latency_.at(context_, owner, offset)));
  }
}

void LowLatencyDispatch::send_far(Rank peer, LowLatencyHeader header) {
  std::vector<std::int64_t> tokens;
  for (std::int64_t token = 0; token < topk_.num_tokens(); ++token) {
    const auto selections = routes_.of(token);
    const auto leads_there = [peer](const auto& selection) { return selection.leads_to(peer); };
    if (std::ranges::any_of(selections, leads_there)) tokens.push_back(token);
  }
  header.num_tokens = static_cast<std::uint32_t>(tokens.size());
  const std::size_t row_bytes = wire_row_bytes();
  const auto write = [&](std::size_t i, std::byte* entry, std::byte* row) {
    const TokenIdx token(static_cast<std::int32_t>(tokens[i]));
    write_entry(tokens[i], peer, reinterpret_cast<std::int32_t*>(entry));
    std::memcpy(row, low_latency_.at(context_, context_.rank, area_.outbox_offset(epoch_, token)),
                row_bytes);
  };
  context_.courier->send(peer, {.header = header,
                                .entry_bytes = area_.entry_stride(),
                                .row_bytes = row_bytes,
                                .write = write});
}

// Payload and scales, as write_row() leaves them.
std::size_t LowLatencyDispatch::wire_row_bytes() const {
  const std::size_t payload = config_.fp8 ? area_.hidden : area_.hidden * 2;
  return align_up(payload + num_scales() * sizeof(std::int32_t), kRowGranuleBytes);
}

void LowLatencyDispatch::write_row(std::int64_t token) const {
  const auto* const source =
      config_.x.as<std::byte>() + static_cast<std::size_t>(token) * area_.hidden * 2;
  const TokenIdx index(static_cast<std::int32_t>(token));
  std::byte* const row =
      low_latency_.at(context_, context_.rank, area_.outbox_offset(epoch_, index));
  if (!config_.fp8) {
    std::memcpy(row, source, area_.hidden * 2);
    return;
  }
  auto* const values = reinterpret_cast<std::uint8_t*>(row);
  simd::quantize_row(source, DType::kBFloat16, area_.hidden, *config_.fp8, values,
                     values + area_.hidden);
}

void LowLatencyDispatch::write_entry(std::int64_t token, Rank destination,
                                     std::int32_t* entry) const {
  const std::span<const TokenRoutes::Selection> selections = routes_.of(token);
  const std::size_t num_topk = selections.size();
  entry[0] = static_cast<std::int32_t>(token);
  entry[1] = 0;
  auto* const weights = reinterpret_cast<float*>(entry + 2 + num_topk);
  const float* const given = config_.topk_weights ? config_.topk_weights->as<float>() +
                                                        static_cast<std::size_t>(token) * num_topk
                                                  : nullptr;
  for (std::size_t k = 0; k < num_topk; ++k) {
    const bool here = selections[k].leads_to(destination);
    entry[2 + k] = here ? selections[k].local : kNoExpert;
    weights[k] = here && given != nullptr ? given[k] : 0.0F;
  }
}

}  // namespace moelink
