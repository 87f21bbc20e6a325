// Both halves of the low latency combine.
#include "backend/cpu/low_latency/low_latency_combine.hpp"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "backend/cpu/arena_tensor.hpp"
#include "backend/cpu/network/low_latency_courier.hpp"
#include "backend/cpu/simd/simd.hpp"
#include "backend/cpu/simd/weighted.hpp"
#include "base/check.hpp"
#include "base/trace_scope.hpp"

namespace moelink {
namespace {

constexpr Operation kOperation = Operation::kLowLatencyCombine;
// Of a message between nodes: token and k.
constexpr std::size_t kReturnEntryBytes = 2 * sizeof(std::int32_t);

}  // namespace

LowLatencyCombine::LowLatencyCombine(CpuContext& context, LowLatencyContext& low_latency,
                                     const LowLatencyCombineConfig& config)
    : context_(context),
      low_latency_(low_latency),
      config_(config),
      topk_(config.topk_idx),
      map_(ExpertMap::make(config.handle->num_experts, context.num_ranks())),
      area_{context.num_ranks(), config.handle->num_max_tokens_per_rank, config.handle->num_topk,
            static_cast<std::size_t>(config.handle->hidden)},
      slot_(low_latency, context.rank, kOperation),
      arrived_(static_cast<std::size_t>(context.num_ranks())),
      contributes_(arrived_) {
  if (context.courier) {
    context.courier->require_fit(kOperation, kReturnEntryBytes, area_.hidden * 2);
  }
  if (config.out) {
    result_.combined_x.view = *config.out;
    return;
  }
  result_.combined_x = make_arena_tensor(*context.results, DType::kBFloat16,
                                         {config.handle->num_tokens, config.handle->hidden});
}

bool LowLatencyCombine::one_row_per_rank() const {
  return config_.handle->layout == LowLatencyLayout::kPerRank ||
         config_.numerics == CombineNumerics::kPreReduced;
}

LowLatencyHeader LowLatencyCombine::header() const {
  LowLatencyHeader header{};
  header.epoch = epoch_.value();
  header.operation = static_cast<std::uint32_t>(kOperation);
  header.format = one_row_per_rank() ? 1 : 0;
  header.num_experts = static_cast<std::uint32_t>(config_.handle->num_experts);
  return header;
}

void LowLatencyCombine::send() {
  config_.stream.previous_event.wait();
  if (config_.input == CombineInput::kNextArea) {
    if (low_latency_.combine_area_epoch != low_latency_.epoch.next()) {
      fail(ErrorCode::kInvalidArgument,
           "{} (rank {}): the combine buffer is stale: ask for it again after the last low latency "
           "operation",
           operation_name(kOperation), context_.rank.value());
    }
    config_.x = low_latency_.combine_area.view;
  }
  routes_ = TokenRoutes(topk_, map_, context_.rank);
  ensure_area(context_, low_latency_, area_);
  epoch_ = begin_low_latency(context_, low_latency_, kOperation);
  const TraceScope scope(kOperation, Stage::kSendBack, context_.rank);
  for (Rank owner(0); owner.value() < context_.num_ranks(); owner = owner.next()) {
    if (context_.signals->masks().is_masked(owner)) continue;
    const Returns returns = list_returns(owner);
    LowLatencyHeader mine = header();
    mine.num_tokens = static_cast<std::uint32_t>(returns.rows.size());
    if (context_.control->is_near(owner)) {
      send_near(owner, returns, mine);
    } else {
      send_far(owner, returns, mine);
    }
  }
}

std::byte* LowLatencyCombine::return_slot(Rank owner, std::int32_t token, std::int32_t k) const {
  return low_latency_.at(context_, owner, area_.return_offset(epoch_, TokenIdx(token), k));
}

template <class Visit>
void LowLatencyCombine::visit_rows(Rank owner, const Visit& visit) const {
  const LowLatencyRouting& routing = *config_.handle;
  const std::int64_t per_group = config_.x.shape[1];
  const auto* const tokens = routing.src_info.view.as<std::int32_t>();
  const auto* const positions = routing.src_topk.view.as<std::int32_t>();
  const auto visit_run = [&](std::int64_t begin, std::int64_t count) {
    for (std::int64_t at = begin; at < begin + count; ++at) {
      visit(ReturnRow{at, tokens[at], positions[at],
                      config_.x.as<std::byte>() + static_cast<std::size_t>(at) * area_.hidden * 2});
    }
  };
  if (routing.layout == LowLatencyLayout::kPerRank) {
    visit_run(owner.value() * per_group, routing.recv_count.view.as<std::int32_t>()[owner.index()]);
    return;
  }
  const auto* const ranges = routing.layout_range.view.as<std::int64_t>();
  for (std::int64_t local = 0; local < map_.experts_per_rank; ++local) {
    const RowRange range = RowRange::unpack(ranges[local * context_.num_ranks() + owner.value()]);
    visit_run(local * per_group + range.begin, range.count);
  }
}

LowLatencyCombine::Returns LowLatencyCombine::list_returns(Rank owner) const {
  const bool reduces_here = config_.numerics == CombineNumerics::kPreReduced &&
                            config_.handle->layout == LowLatencyLayout::kPerExpert;
  std::vector<ReturnRow> rows;
  visit_rows(owner, [&rows](const ReturnRow& row) { rows.push_back(row); });
  Returns returns;
  if (!reduces_here) {
    for (const ReturnRow& row : rows) returns.rows.push_back({row.token, row.k, row.row});
    return returns;
  }
  const auto* const weights = config_.handle->src_weight.view.as<float>();
  std::ranges::sort(rows, {}, [](const ReturnRow& row) { return std::tuple(row.token, row.k); });
  for (const ReturnRow& row : rows) {
    if (returns.rows.empty() || returns.rows.back().token != row.token)
      returns.rows.push_back({row.token, row.k, nullptr, returns.terms.size()});
    ++returns.rows.back().num_terms;
    returns.terms.push_back({row.row, weights[row.at]});
  }
  return returns;
}

void LowLatencyCombine::write_return(const Returns& returns, const Return& one,
                                     std::byte* out) const {
  if (one.row != nullptr) {
    std::memcpy(out, one.row, area_.hidden * 2);
  } else {
    simd::weighted_sum_row({returns.terms.data() + one.first_term, one.num_terms}, area_.hidden,
                           out);
  }
}

void LowLatencyCombine::send_near(Rank owner, const Returns& returns,
                                  const LowLatencyHeader& header) const {
  for (const Return& one : returns.rows)
    write_return(returns, one, return_slot(owner, one.token, one.k));
  const std::size_t offset = area_.message_offset(epoch_, context_.rank);
  std::memcpy(low_latency_.at(context_, owner, offset), &header, sizeof(header));
  if (owner == context_.rank) return;
  context_.signals->put(owner, SignalChannel::kLowLatencySent, SignalValue::of(epoch_, kDone));
}

void LowLatencyCombine::send_far(Rank owner, const Returns& returns,
                                 const LowLatencyHeader& header) const {
  const auto write = [&](std::size_t i, std::byte* entry, std::byte* row) {
    const std::int32_t place[2] = {returns.rows[i].token, returns.rows[i].k};
    std::memcpy(entry, place, sizeof(place));
    write_return(returns, returns.rows[i], row);
  };
  context_.courier->send(owner, {.header = header,
                                 .entry_bytes = kReturnEntryBytes,
                                 .row_bytes = area_.hidden * 2,
                                 .write = write});
}

// A rank that returned another number of rows than this rank's tokens call for has left this rank
// out of the dispatch, or the other way round: what lies in its slots is of an older operation.
void LowLatencyCombine::leave_out_strangers() {
  std::vector<std::uint32_t> expected(arrived_.size());
  for (const TokenRoutes::Selection& selection : routes_.all()) {
    const bool sent_back = one_row_per_rank() ? selection.is_first : selection.rank >= 0;
    if (sent_back) ++expected[static_cast<std::size_t>(selection.rank)];
  }
  for (Rank source(0); source.value() < context_.num_ranks(); source = source.next()) {
    if (!arrived_[source.index()]) continue;
    const std::uint32_t seen = header_of(context_, low_latency_, epoch_, source).num_tokens;
    contributes_[source.index()] = seen == expected[source.index()];
  }
}

void LowLatencyCombine::receive() {
  const TraceScope scope(kOperation, Stage::kReduce, context_.rank);
  auto* const wait_cost = config_.wait_cost ? config_.wait_cost->as<std::int64_t>() : nullptr;
  for (Rank source(0); source.value() < context_.num_ranks(); source = source.next()) {
    arrived_[source.index()] = await_message(context_, source, epoch_, kOperation, wait_cost);
  }
  check_messages(context_, low_latency_, header(), arrived_);
  leave_out_strangers();
  for (std::int64_t token = 0; token < config_.handle->num_tokens; ++token) reduce_token(token);
  acknowledge(context_, low_latency_, epoch_, arrived_);
}

void LowLatencyCombine::reduce_token(std::int64_t token) const {
  if (one_row_per_rank()) {
    reduce_by_rank(token);
  } else {
    reduce_exact(token);
  }
}

void LowLatencyCombine::reduce_exact(std::int64_t token) const {
  simd::WeightedRow terms[kMaxTopk];
  std::size_t count = 0;
  int k = -1;
  for (const TokenRoutes::Selection& selection : routes_.of(token)) {
    ++k;
    if (!contributes(selection)) continue;
    const float weight = config_.topk_weights.as<float>()[token * topk_.num_topk() + k];
    terms[count++] = {return_slot(context_.rank, static_cast<std::int32_t>(token), k), weight};
  }
  simd::weighted_sum_row(
      {terms, count}, area_.hidden,
      result_.combined_x.view.as<std::byte>() + static_cast<std::size_t>(token) * area_.hidden * 2);
}

void LowLatencyCombine::reduce_by_rank(std::int64_t token) const {
  struct Term {
    std::int32_t rank;
    int k;
  };
  Term terms[kMaxTopk];
  std::size_t count = 0;
  int k = -1;
  for (const TokenRoutes::Selection& selection : routes_.of(token)) {
    ++k;
    if (selection.is_first && contributes(selection)) terms[count++] = {selection.rank, k};
  }
  std::ranges::sort(terms, terms + count, {}, &Term::rank);
  simd::Addend addends[kMaxTopk];
  for (std::size_t i = 0; i < count; ++i) {
    addends[i] = {return_slot(context_.rank, static_cast<std::int32_t>(token), terms[i].k), 0};
  }
  simd::reduce_row({.dtype = DType::kBFloat16,
                    .num_channels = area_.hidden,
                    .addends = {addends, count},
                    .out = result_.combined_x.view.as<std::byte>() +
                           static_cast<std::size_t>(token) * area_.hidden * 2});
}

}  // namespace moelink
