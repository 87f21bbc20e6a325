// Combine: publish where the rows are, then pull and reduce them chunk by chunk.
#include "backend/cpu/combine.hpp"

#include <algorithm>
#include <cstring>

#include "backend/combine_digest.hpp"
#include "backend/cpu/arena_tensor.hpp"
#include "base/check.hpp"
#include "base/trace_scope.hpp"
#include "moelink/routing.hpp"
#include "protocol/placement.hpp"
#include "protocol/staging_plan.hpp"

namespace moelink {
namespace {

// Up to this size a copy costs less than waiting until all peers have read the tensor in place.
constexpr std::size_t kSmallTensorBytes = std::size_t{256} << 10;

}  // namespace

CombineOperation::CombineOperation(CpuContext& context, const CombineConfig& config)
    : context_(context),
      config_(config),
      state_(config.handle->state()),
      row_bytes_(static_cast<std::size_t>(config.x.shape[1]) * dtype_size(config.x.dtype)),
      num_chunks_(1) {
  if (context.network) plan_partial_message(context, config);  // refuses rows before all else
  if (config.out) {
    result_.combined_x.view = *config.out;
  } else {
    result_.combined_x =
        make_arena_tensor(*context.results, config.x.dtype, {state_.num_tokens, config.x.shape[1]});
  }
  if (config.topk_weights) {
    result_.combined_topk_weights =
        make_arena_tensor(*context.results, DType::kFloat32, {state_.num_tokens, state_.num_topk});
  }
}

void CombineOperation::run() {
  config_.stream.previous_event.wait();
  num_chunks_ = num_staging_chunks(state_.count_matrix(), row_bytes_);
  const ExchangeBlock mine = describe_call();
  const Exchange exchange = exchange_calls(context_, Operation::kCombine, mine, {});
  epoch_ = context_.epoch;
  // The areas of this operation stay until all peers have begun the next one.
  context_.retired = std::move(published_);
  open_sources(exchange);
  for (std::uint32_t chunk = 0; chunk < num_chunks_; ++chunk) run_chunk(chunk);
  if (!staging_ && config_.x.num_bytes() > 0) {
    const TraceScope scope(Operation::kCombine, Stage::kRelease, context_.rank);
    context_.signals->wait_all(SignalChannel::kConsumed, SignalValue::of(epoch_, num_chunks_),
                               context_.wait_context(Operation::kCombine, Stage::kRelease));
  }
  if (relay_) context_.remote->flush();
  context_.completed = epoch_;
}

ExchangeBlock CombineOperation::describe_call() {
  ExchangeBlock block{};
  block.digest = combine_digest(config_, state_);
  block.num_tokens = static_cast<std::uint64_t>(state_.num_tokens);
  block.spans[1] = publish_weights();

  const std::size_t bytes = config_.x.num_bytes();
  if (bytes == 0) return block;
  if (bytes > kSmallTensorBytes && context_.arena->contains(config_.x.data, bytes)) {
    block.source = CombineSource::kInPlace;
    block.spans[0] = WireSpan{context_.arena->offset_of(config_.x.data), bytes};
    return block;
  }
  staging_ = std::make_unique<StagingArea>(context_, state_, config_.x, num_chunks_);
  ++context_.num_staged_combines;
  block.source = CombineSource::kStaged;
  block.spans[0] = staging_->span();
  stage_chunk(0);
  published_.push_back(staging_->owner());
  return block;
}

WireSpan CombineOperation::publish_weights() {
  if (!config_.topk_weights || config_.topk_weights->num_bytes() == 0) return WireSpan{};
  const std::size_t bytes = config_.topk_weights->num_bytes();
  std::shared_ptr<void> copy = context_.arena->allocate(bytes);
  std::memcpy(copy.get(), config_.topk_weights->data, bytes);
  const WireSpan span{context_.arena->offset_of(copy.get()), bytes};
  published_.push_back(std::move(copy));
  return span;
}

void CombineOperation::open_sources(const Exchange& exchange) {
  sources_ = std::make_unique<PullSources>(context_, state_, exchange, context_.rank, row_bytes_);
  if (!context_.network) return;
  relay_.reset(
      new Relay{.wait = RelayWait(context_, Operation::kCombine, Stage::kSendBack, epoch_),
                .combine = RelayCombine(context_, config_, exchange),
                .partials = PartialSums(context_, state_, plan_partial_message(context_, config_),
                                        exchange.present)});
}

void CombineOperation::run_chunk(std::uint32_t chunk) {
  if (staging_ && chunk + 1 < num_chunks_) {
    stage_chunk(chunk + 1);
    context_.signals->put_all(SignalChannel::kStaged, SignalValue::of(epoch_, chunk + 1));
  }
  const IndexRange tokens{chunk_begin(state_.num_tokens, chunk, num_chunks_),
                          chunk_begin(state_.num_tokens, chunk + 1, num_chunks_)};
  const TraceScope scope(Operation::kCombine, Stage::kReduce, context_.rank);
  await_chunk(chunk);
  if (relay_) {
    relay_->combine.send_chunk(chunk, num_chunks_, relay_->partials, relay_->wait);
    relay_->partials.await(tokens, relay_->wait);
  }
  const int workers = workers_for(context_, config_.stream);
  context_.workers.run(tokens.end - tokens.begin, workers, [&](IndexRange part) {
    reduce_tokens(IndexRange{tokens.begin + part.begin, tokens.begin + part.end}, chunk);
  });
  sources_->advance(state_.placement(), tokens);
  if (relay_) relay_->partials.release_before(tokens.end, relay_->wait.deadline());
  release_chunk(chunk);
}

void CombineOperation::stage_chunk(std::uint32_t chunk) {
  const TraceScope scope(Operation::kCombine, Stage::kSendBack, context_.rank);
  if (chunk >= kNumStagingSlots) {  // the slot's last content must have been read by everybody
    const std::uint32_t consumed = chunk + 1 - kNumStagingSlots;
    context_.signals->wait_all(SignalChannel::kConsumed, SignalValue::of(epoch_, consumed),
                               context_.wait_context(Operation::kCombine, Stage::kSendBack));
  }
  staging_->fill(chunk, workers_for(context_, config_.stream));
}

void CombineOperation::await_chunk(std::uint32_t chunk) {
  if (chunk == 0) return;  // staged before the exchange
  for (Rank rank(0); rank.value() < context_.num_ranks(); rank = rank.next()) {
    if (sources_->reads_in_place(rank)) continue;
    const bool staged =
        context_.signals->wait(rank, SignalChannel::kStaged, SignalValue::of(epoch_, chunk),
                               context_.wait_context(Operation::kCombine, Stage::kReduce));
    if (staged) continue;
    sources_->lose(rank);
    if (relay_) relay_->combine.lose(rank);
  }
}

void CombineOperation::list_pulls(std::int64_t token, std::vector<Pull>& pulls) const {
  pulls.clear();
  for (Rank rank(0); rank.value() < state_.num_ranks; rank = rank.next()) {
    if (context_.control->is_near(rank)) {
      sources_->list_pulls(state_.placement(), token, rank, pulls);
      continue;
    }
    const int group = context_.relay.group_of(rank);
    if (rank != context_.relay.first_rank(group)) continue;
    if (relay_->partials.row(group, token) != nullptr) pulls.push_back(Pull{rank, 0, Row(0)});
  }
  close_levels(context_.topology, pulls.data(), static_cast<int>(pulls.size()));
}

void CombineOperation::list_addends(std::int64_t token, std::uint32_t chunk,
                                    std::vector<Pull>& pulls,
                                    std::vector<simd::Addend>& addends) const {
  list_pulls(token, pulls);
  addends.clear();
  for (const Pull& pull : pulls) {
    const void* row = context_.control->is_near(pull.rank)
                          ? sources_->address_of(pull, chunk)
                          : relay_->partials.row(context_.relay.group_of(pull.rank), token);
    addends.push_back({row, pull.closes});
  }
}

const std::byte* CombineOperation::row_of(const std::optional<TensorView>& tensor,
                                          std::int64_t token) const {
  if (!tensor) return nullptr;
  return tensor->as<std::byte>() + static_cast<std::size_t>(token) * row_bytes_;
}

void CombineOperation::reduce_tokens(IndexRange tokens, std::uint32_t chunk) const {
  const TensorView& out = result_.combined_x.view;
  const simd::StorePolicy policy = simd::policy_for(out.num_bytes());
  std::vector<Pull> pulls;
  std::vector<simd::Addend> addends;
  for (std::int64_t token = tokens.begin; token < tokens.end; ++token) {
    list_addends(token, chunk, pulls, addends);
    simd::reduce_row({.dtype = out.dtype,
                      .num_channels = static_cast<std::size_t>(out.shape[1]),
                      .addends = addends,
                      .bias_0 = row_of(config_.bias_0, token),
                      .bias_1 = row_of(config_.bias_1, token),
                      .out = out.as<std::byte>() + static_cast<std::size_t>(token) * row_bytes_,
                      .policy = policy});
    if (config_.topk_weights) reduce_weights(token);
  }
  simd::streaming_fence();
}

// The ranks of each node first, then the nodes.
void CombineOperation::reduce_weights(std::int64_t token) const {
  const std::int64_t num_topk = state_.num_topk;
  float* const out = result_.combined_topk_weights->view.as<float>() + token * num_topk;
  std::fill_n(out, num_topk, 0.0F);
  for (Node node(0); node.value() < context_.topology.num_nodes; node = node.next()) {
    float sums[kMaxTopk] = {};
    add_weights_of(node, token, sums);
    for (std::int64_t k = 0; k < num_topk; ++k) out[k] += sums[k];
  }
}

void CombineOperation::add_weights_of(Node node, std::int64_t token, float* sums) const {
  sources_->add_weights(state_.placement(), token, node, sums);  // of near ranks
  if (!relay_) return;
  const RelayPlan& plan = context_.relay;
  const int first = plan.group_of(context_.topology.rank_at(node, LocalRank(0)));
  const int end = first + context_.topology.ranks_per_node() / plan.group_size();
  for (int group = first; group < end; ++group) {
    const float* const theirs = relay_->partials.weights(group, token);
    for (std::int64_t k = 0; theirs != nullptr && k < state_.num_topk; ++k) sums[k] += theirs[k];
  }
}

void CombineOperation::release_chunk(std::uint32_t chunk) {
  const bool last = chunk + 1 == num_chunks_;
  const bool slot_is_reused = chunk + kNumStagingSlots < num_chunks_;
  for (Rank rank(0); rank.value() < context_.num_ranks(); rank = rank.next()) {
    if (rank == context_.rank || sources_->is_lost(rank)) continue;
    if (sources_->reads_in_place(rank) ? last : slot_is_reused) {
      context_.signals->put(rank, SignalChannel::kConsumed, SignalValue::of(epoch_, chunk + 1));
    }
  }
}

}  // namespace moelink
