// Launches a barrier kernel and reads its report.
#include "backend/cuda/host_exchange.hpp"

#include "backend/call_agreement.hpp"
#include "backend/cuda/await_report.hpp"
#include "base/cuda/check.hpp"
#include "kernels/barrier/launch.hpp"

namespace moelink {

HostExchange exchange_on_host(CudaContext& context, Operation operation, ExchangeBlock mine) {
  mine.digest.set(DigestField::kOperation, static_cast<std::int64_t>(operation));
  context.epoch = context.epoch.next();
  kernels::BarrierParams params;
  params.domain = context.domain;
  params.mine = mine;
  params.report = report_target(context);
  params.masked = context.low_latency.masked;
  params.survival = context.survival;
  // On the buffer's own stream, so that only the operations themselves come before it.
  const StreamOptions options{.completion = Completion::kAsync};
  cudaStream_t const stream = context.order->begin(options);
  kernels::launch_barrier(params, stream);
  const Event done = context.order->end(options, context.faults, context.epoch);
  const kernels::Report& report = await_report(context, params.report, stream);
  const auto num_ranks = static_cast<std::size_t>(context.num_ranks());
  HostExchange exchange;
  exchange.blocks.assign(report.blocks(), report.blocks() + num_ranks);
  done.wait();
  for (const std::uint32_t masked : context.low_latency.read_masks(context.num_ranks())) {
    exchange.present.push_back(masked == 0);
  }
  check_same_call(exchange.blocks, exchange.present, operation, context.rank);
  return exchange;
}

}  // namespace moelink
