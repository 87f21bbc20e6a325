// Block 0's part between counting and placing: the exchange, and where every rank takes its rows.
#pragma once

#include <cstdint>

#include "kernels/dispatch/params.hpp"
#include "kernels/exchange/exchange.cuh"
#include "kernels/exchange/report.cuh"
#include "protocol/offer.hpp"
#include "protocol/placement.hpp"

namespace moelink::kernels {

// One thread of block 0, once all blocks have counted.
__device__ inline ExchangeBlock describe_call(const DispatchParams& params) {
  ExchangeBlock mine = params.mine;
  const unsigned long long bad = params.domain.local->bad_selection;
  if (bad != 0) {
    const auto index = static_cast<std::int64_t>(~bad);
    mine.bad_selection = index + 1;
    mine.bad_id = params.topk.id(index);
  }
  return mine;
}

// All threads of block 0: waits until all blocks have counted. False if a block does not come.
__device__ inline bool await_counts(const DispatchParams& params, const DispatchPlan& plan) {
  const Domain& domain = params.domain;
  const auto num_blocks = static_cast<std::uint32_t>(plan.num_blocks);
  int missing = 0;
  if (threadIdx.x == 0) {
    const device::WaitTarget target{params.operation, Stage::kCount, domain.rank,
                                    current_epoch(domain)};
    missing =
        device::wait_for_blocks(domain, target, domain.local->num_counted, num_blocks) ? 0 : 1;
  }
  return __syncthreads_or(missing) == 0;
}

// All threads of block 0, after await_counts(): leaves the sums of all blocks in `sums`; a barrier
// must follow.
__device__ inline void sum_partials(const DispatchParams& params, const DispatchPlan& plan,
                                    std::int32_t* sums, int num_columns) {
#pragma unroll 1
  for (int column = static_cast<int>(threadIdx.x); column < num_columns;
       column += static_cast<int>(blockDim.x)) {
    const std::int32_t* const partials = params.domain.partials + column;
    std::int32_t sum = 0;
#pragma unroll 16
    for (int block = 0; block < plan.num_blocks; ++block) sum += partials[block * num_columns];
    sums[column] = sum;
  }
}

// All threads of block 0: keeps the exchanged matrix and limits in the handle. A barrier must
// follow before they are read there.
__device__ inline void keep_counts(const DispatchParams& params, int num_columns) {
  const Domain& domain = params.domain;
  const Epoch epoch = current_epoch(domain);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < domain.num_ranks() * num_columns;
       i += static_cast<int>(blockDim.x)) {
    const std::int32_t* const row = domain.count_row(domain.rank, epoch, Rank(i / num_columns));
    params.routing.counts[i] = row[i % num_columns];
  }
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < domain.num_ranks();
       i += static_cast<int>(blockDim.x)) {
    params.routing.max_rows_of_rank[i] = domain.exchange(domain.rank, epoch, Rank(i))->row_limit();
  }
}

// All threads of block 0, when rows are on their way: what the handle tells about the receiving
// side.
__device__ inline void describe_receive(const DispatchParams& params) {
  const Domain& domain = params.domain;
  const int num_ranks = domain.num_ranks();
  const CountMatrix matrix = params.count_matrix();
  const ExpertMap map = ExpertMap::make(params.num_experts, num_ranks);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < num_ranks * num_ranks;
       i += static_cast<int>(blockDim.x)) {
    const Rank source(i / num_ranks);
    params.routing.rank_prefix_matrix[i] =
        static_cast<std::int32_t>(matrix.tokens_before(source.next(), Rank(i % num_ranks)));
  }
  const int num_local = params.topk.num_topk > 0 ? map.experts_per_rank : 0;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < num_local; i += static_cast<int>(blockDim.x)) {
    const auto rows =
        static_cast<std::int32_t>(matrix.num_selections(map.global(domain.rank, LocalExpert(i))));
    params.routing.recv_tokens_per_expert[i] = rows;
    if (params.recv_stats != nullptr) params.recv_stats[i] += rows;
  }
}

// One warp per destination: padded rows of its experts, and in expert_base where this rank's
// selections of each begin. Returns the destination's rows, the same at all lanes.
__device__ inline std::int64_t scan_experts(const DispatchParams& params, Rank destination) {
  const Domain& domain = params.domain;
  const CountMatrix matrix = params.count_matrix();
  const ExpertMap map = ExpertMap::make(params.num_experts, domain.num_ranks());
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  std::int64_t base = 0;
#pragma unroll 1
  for (int first = 0; first < map.experts_per_rank; first += warpSize) {
    const int local = first + lane;
    const bool exists = local < map.experts_per_rank;
    const Expert expert = map.global(destination, LocalExpert(exists ? local : 0));
    const std::int64_t rows =
        exists ? padded_group_rows(matrix, expert, params.expert_alignment) : 0;
    std::int64_t end = rows;
#pragma unroll 1
    for (int step = 1; step < warpSize; step *= 2) {
      const std::int64_t lower = __shfl_up_sync(~0U, end, static_cast<unsigned>(step));
      if (lane >= step) end += lower;
    }
    const std::int64_t begin = base + end - rows;
    if (exists && !params.is_cached()) {
      domain.expert_base[expert.value()] =
          static_cast<std::int32_t>(begin + matrix.selections_before(domain.rank, expert));
    }
    if (exists && destination == domain.rank) {
      domain.group_start[local] = static_cast<std::int32_t>(begin);
    }
    base += __shfl_sync(~0U, end, warpSize - 1);
  }
  if (destination == domain.rank && lane == 0) *domain.num_rows = base;
  return base;
}

// One warp: the tokens that `destination` receives. Of a first dispatch they are read where they
// have arrived, so that nothing has to be waited for.
__device__ inline std::int64_t tokens_to(const DispatchParams& params, Rank destination) {
  const Domain& domain = params.domain;
  const CountMatrix matrix = params.count_matrix();
  int sum = 0;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x % warpSize); i < domain.num_ranks(); i += warpSize) {
    sum += params.is_cached()
               ? matrix.tokens(Rank(i), destination)
               : domain.count_row(domain.rank, current_epoch(domain), Rank(i))[destination.index()];
  }
#pragma unroll 1
  for (int step = warpSize / 2; step > 0; step /= 2) sum += __shfl_xor_sync(~0U, sum, step);
  return sum;
}

// One warp per destination: the addresses of its receive parts. False if its rows do not fit.
__device__ inline bool find_place(const DispatchParams& params, Rank destination) {
  const Domain& domain = params.domain;
  const bool compact = params.shape.layout == Layout::kCompact;
  const ExchangeBlock& block = *domain.exchange(domain.rank, current_epoch(domain), destination);
  const std::int64_t max_rows =
      params.is_cached() ? params.routing.max_rows_of_rank[destination.index()] : block.row_limit();
  const std::int64_t tokens = tokens_to(params, destination);
  const std::int64_t rows = compact ? tokens : scan_experts(params, destination);
  if (max_rows > 0 && rows > max_rows) return false;
  const ReceiveLayout layout = max_rows > 0 ? ReceiveLayout::make(params.shape, max_rows, max_rows)
                                            : ReceiveLayout::make(params.shape, rows, tokens);
  const WireSpan place = choose_place(block.spans[0], block.spans[1], layout.total_bytes());
  if (place.bytes < layout.total_bytes()) return false;
  if (threadIdx.x % warpSize != 0) return true;
  std::byte* at = domain.region(destination) + place.offset;
#pragma unroll
  for (std::size_t part = 0; part < kNumReceiveParts; ++part) {
    domain.peers[destination.index()].parts[part] = at;
    at += layout.part_bytes[part];
  }
  return true;
}

// All threads of block 0: 1 at a thread that finds a place lacking. Expert-major: the counts must
// be in the handle.
__device__ inline int places_lack(const DispatchParams& params) {
  const int warp = static_cast<int>(threadIdx.x / warpSize);
  const int num_warps = static_cast<int>(blockDim.x / warpSize);
  int lacking = 0;
#pragma unroll 1
  for (int i = warp; i < params.domain.num_ranks(); i += num_warps) {
    if (!find_place(params, Rank(i))) lacking = 1;
  }
  return lacking;
}

// All threads of block 0, after the peers' blocks have arrived: whether the operation can go on.
// Leaves the counts in the handle and the places in the domain.
__device__ inline bool take_calls(const DispatchParams& params, int num_columns) {
  int refused = calls_differ(params.domain);
  if (!params.is_cached()) keep_counts(params, num_columns);
  if (params.shape.layout == Layout::kExpertMajor && __syncthreads_or(refused) != 0) return false;
  refused |= places_lack(params);
  return __syncthreads_or(refused) == 0;
}

// All threads of block 0: tells the peers, hears from them, decides. `sums`: see agree().
__device__ inline Verdict exchange(const DispatchParams& params, const DispatchPlan& plan,
                                   std::int32_t* sums, int num_columns) {
  const Domain& domain = params.domain;
  __shared__ ExchangeBlock mine;
  if (has_fault(domain)) return Verdict::kGaveUp;
  if (!params.is_cached()) {
    if (!await_counts(params, plan)) return Verdict::kGaveUp;
    sum_partials(params, plan, sums, num_columns);
  }
  if (threadIdx.x + 1 == blockDim.x) mine = describe_call(params);  // has few columns, or none
  __syncthreads();
  publish_call(domain, mine, sums, params.is_cached() ? 0 : num_columns);
  if (!await_all(domain, params.operation, Stage::kExchange, SignalChannel::kExchanged)) {
    return Verdict::kGaveUp;
  }
  return take_calls(params, num_columns) ? Verdict::kProceed : Verdict::kRefused;
}

// All threads of block 0. `sums`: [R + E] in shared memory, for this rank's counts.
__device__ inline void agree(const DispatchParams& params, const DispatchPlan& plan,
                             std::int32_t* sums, int num_columns) {
  const Domain& domain = params.domain;
  const Verdict verdict = exchange(params, plan, sums, num_columns);
  if (verdict == Verdict::kRefused && threadIdx.x == 0) {
    raise_refusal(domain, params.report, params.operation);
  }
  release_blocks(domain, verdict);
  write_report(domain, params.report, verdict, params.is_cached() ? 0 : num_columns);
}

}  // namespace moelink::kernels
