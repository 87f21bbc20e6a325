// Receiving half of the low latency dispatch: expands messages into the packed output.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "backend/cpu/low_latency/low_latency_dispatch.hpp"
#include "base/check.hpp"
#include "base/trace_scope.hpp"

namespace moelink {
namespace {

constexpr Operation kOperation = Operation::kLowLatencyDispatch;

}  // namespace

void LowLatencyDispatch::receive() {
  const TraceScope scope(kOperation, Stage::kReceive, context_.rank);
  read_messages();
  check_messages(context_, low_latency_, header(), arrived_);
  if (config_.layout == LowLatencyLayout::kPerExpert) {
    expand_per_expert();
  } else {
    expand_per_rank();
  }
  check_outboxes();
  acknowledge(context_, low_latency_, epoch_, arrived_);
  if (!config_.recv_stats || config_.layout != LowLatencyLayout::kPerExpert) return;
  const auto* const counts = routing_->recv_count.view.as<std::int32_t>();
  auto* const stats = config_.recv_stats->as<std::int32_t>();
  for (int local = 0; local < map_.experts_per_rank; ++local) stats[local] += counts[local];
}

void LowLatencyDispatch::read_messages() {
  auto* const wait_cost = config_.wait_cost ? config_.wait_cost->as<std::int64_t>() : nullptr;
  messages_.assign(static_cast<std::size_t>(context_.num_ranks()), Message{});
  for (Rank source(0); source.value() < context_.num_ranks(); source = source.next()) {
    const bool arrived = await_message(context_, source, epoch_, kOperation, wait_cost);
    arrived_[source.index()] = arrived;
    if (!arrived) continue;
    Message& message = messages_[source.index()];
    message.num_tokens = header_of(context_, low_latency_, epoch_, source).num_tokens;
    message.entries =
        low_latency_.at(context_, context_.rank, area_.entry_offset(epoch_, source, 0));
    message.rows = context_.control->is_near(source)
                       ? low_latency_.at(context_, source, area_.outbox_offset(epoch_, TokenIdx(0)))
                       : low_latency_.far_outbox(source, epoch_);
  }
}

// A rank writes its outbox again once all ranks that it has not masked have acknowledged. Looking
// is a read-modify-write with release order, so that no row is read after it.
void LowLatencyDispatch::check_outboxes() const {
  for (Rank source(0); source.value() < context_.num_ranks(); source = source.next()) {
    if (!arrived_[source.index()] || !context_.control->is_near(source)) continue;
    const std::uint64_t seen = outbox_epoch(source).fetch_add(0, std::memory_order_acq_rel);
    if (seen == epoch_.value()) continue;
    fail(
        ErrorCode::kPeerLost,
        "{} (rank {}), stage receive: rank {} has masked this rank and gone on (expected operation "
        "{}, seen {})",
        operation_name(kOperation), context_.rank.value(), source.value(), epoch_.value(), seen);
  }
}

void LowLatencyDispatch::lay_out_experts(std::vector<std::int64_t>& next_row) {
  const auto num_ranks = static_cast<std::size_t>(context_.num_ranks());
  const auto num_local = static_cast<std::size_t>(map_.experts_per_rank);
  std::vector<std::int64_t> counts(num_local * num_ranks);
  for (std::size_t source = 0; source < num_ranks; ++source) {
    const Message& message = messages_[source];
    for (std::size_t i = 0; i < message.num_tokens; ++i) {
      const std::int32_t* ids = message.entry(i, area_.entry_stride()) + 2;
      for (int k = 0; k < topk_.num_topk(); ++k) {
        if (ids[k] == kNoExpert) continue;
        ++counts[static_cast<std::size_t>(ids[k]) * num_ranks + source];
      }
    }
  }
  next_row.assign(counts.size(), 0);
  auto* const ranges = routing_->layout_range.view.as<std::int64_t>();
  auto* const totals = routing_->recv_count.view.as<std::int32_t>();
  for (std::size_t local = 0; local < num_local; ++local) {
    std::int64_t begin = 0;
    for (std::size_t i = local * num_ranks; i < (local + 1) * num_ranks; ++i) {
      next_row[i] = begin;
      ranges[i] = RowRange{begin, counts[i]}.pack();
      begin += counts[i];
    }
    totals[local] = static_cast<std::int32_t>(begin);
  }
}

void LowLatencyDispatch::expand_per_expert() {
  std::vector<std::int64_t> next_row;
  lay_out_experts(next_row);
  const auto num_ranks = static_cast<std::size_t>(context_.num_ranks());
  const int num_topk = topk_.num_topk();
  for (std::size_t source = 0; source < num_ranks; ++source) {
    const Message& message = messages_[source];
    for (std::size_t i = 0; i < message.num_tokens; ++i) {
      const std::int32_t* entry = message.entry(i, area_.entry_stride());
      const auto* weights = reinterpret_cast<const float*>(entry + 2 + num_topk);
      for (int k = 0; k < num_topk; ++k) {
        const std::int32_t local = entry[2 + k];
        if (local == kNoExpert) continue;
        const std::int64_t index = next_row[static_cast<std::size_t>(local) * num_ranks + source]++;
        const std::int64_t at = local * rows_per_group() + index;
        routing_->src_info.view.as<std::int32_t>()[at] = entry[0];
        routing_->src_topk.view.as<std::int32_t>()[at] = k;
        if (config_.topk_weights) routing_->src_weight.view.as<float>()[at] = weights[k];
        store_row(message.row(entry, area_.row_stride()), local, index);
      }
    }
  }
}

// The ids and weights of rows that no token of `source` fills.
void LowLatencyDispatch::clear_unused(std::int64_t source, std::int64_t num_used) {
  const std::int64_t begin = (source * rows_per_group() + num_used) * topk_.num_topk();
  const std::int64_t count = (rows_per_group() - num_used) * topk_.num_topk();
  std::fill_n(result_.recv_topk_idx->view.as<std::int32_t>() + begin, count, kNoExpert);
  if (!config_.topk_weights) return;
  std::fill_n(result_.recv_topk_weights->view.as<float>() + begin, count, 0.0F);
}

void LowLatencyDispatch::expand_per_rank() {
  const int num_topk = topk_.num_topk();
  auto* const ids = result_.recv_topk_idx->view.as<std::int32_t>();
  std::fill_n(routing_->layout_range.view.as<std::int64_t>(),
              routing_->layout_range.view.num_elements(), 0);
  for (std::int64_t source = 0; source < context_.num_ranks(); ++source) {
    const Message& message = messages_[static_cast<std::size_t>(source)];
    routing_->recv_count.view.as<std::int32_t>()[source] =
        static_cast<std::int32_t>(message.num_tokens);
    clear_unused(source, message.num_tokens);
    for (std::size_t i = 0; i < message.num_tokens; ++i) {
      const std::int32_t* entry = message.entry(i, area_.entry_stride());
      const std::int64_t at = source * rows_per_group() + static_cast<std::int64_t>(i);
      const std::int32_t* first = std::find_if(entry + 2, entry + 2 + num_topk,
                                               [](std::int32_t id) { return id != kNoExpert; });
      routing_->src_info.view.as<std::int32_t>()[at] = entry[0];
      routing_->src_topk.view.as<std::int32_t>()[at] =
          static_cast<std::int32_t>(first - (entry + 2));
      std::copy_n(entry + 2, num_topk, ids + at * num_topk);
      if (config_.topk_weights) {
        std::memcpy(result_.recv_topk_weights->view.as<float>() + at * num_topk,
                    entry + 2 + num_topk, static_cast<std::size_t>(num_topk) * sizeof(float));
      }
      store_row(message.row(entry, area_.row_stride()), source, static_cast<std::int64_t>(i));
    }
  }
}

void LowLatencyDispatch::store_row(const std::byte* row, std::int64_t group, std::int64_t index) {
  const std::size_t payload_bytes = config_.fp8 ? area_.hidden : area_.hidden * 2;
  const auto at = static_cast<std::size_t>(group * rows_per_group() + index);
  std::memcpy(result_.recv_x.view.as<std::byte>() + at * payload_bytes, row, payload_bytes);
  if (!config_.fp8) return;
  const TensorView& scales = result_.recv_scales->view;
  auto* const out = scales.as<std::int32_t>() + group * scales.strides[0] + index;
  const auto* const from = reinterpret_cast<const std::int32_t*>(row + area_.hidden);
  for (std::int64_t i = 0; i < scales.shape[2]; ++i) out[i * scales.strides[2]] = from[i];
}

}  // namespace moelink
