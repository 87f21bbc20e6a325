// Sizes the regions, opens them at all ranks, and readies the kernels.
#include <algorithm>
#include <cstring>

#include "backend/cuda/cuda_context.hpp"
#include "backend/cuda/line_format.hpp"
#include "backend/opening.hpp"
#include "base/check.hpp"
#include "base/cuda/owners.hpp"
#include "base/environment.hpp"
#include "base/trace_scope.hpp"
#include "kernels/barrier/launch.hpp"
#include "kernels/combine/launch.hpp"
#include "kernels/dispatch/launch.hpp"
#include "kernels/layout/launch.hpp"
#include "kernels/low_latency/launch.hpp"
#include "protocol/counts.hpp"
#include "symm/cuda/cuda_memory.hpp"

namespace moelink {
namespace {

constexpr std::size_t kDefaultSymmetricBytes = std::size_t{1} << 30;
constexpr int kDefaultNumSms = 24;
// Left free on a GPU that ranks share, for kernels that the waiting ones wait for.
constexpr int kNumSpareSms = 4;

// GPUs that this process sees. Throws Error(kUnsupported) if there is no CUDA at all.
int count_devices(const Group& group, int device) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess) return count;
  cudaGetLastError();
  fail(ErrorCode::kUnsupported, "Buffer (rank {}): device is cuda:{}, but CUDA does not work: {}",
       group.rank().value(), device, cudaGetErrorString(error));
}

// Throws the same at all ranks, except that a rank without its device speaks of itself.
void require_devices(const Group& group, const OpeningTicket& mine,
                     const std::vector<OpeningTicket>& tickets) {
  if (!mine.has_device()) {
    fail(ErrorCode::kInvalidArgument,
         "Buffer (rank {}): device is cuda:{}, expected 0 .. {}: this process sees {} GPUs",
         group.rank().value(), mine.device, mine.num_devices - 1, mine.num_devices);
  }
  for (std::size_t rank = 0; rank < tickets.size(); ++rank) {
    if (tickets[rank].has_device()) continue;
    fail(ErrorCode::kInvalidArgument,
         "Buffer (rank {}): device is cuda:{} on rank {}, expected 0 .. {}: its process sees {} "
         "GPUs",
         group.rank().value(), tickets[rank].device, rank, tickets[rank].num_devices - 1,
         tickets[rank].num_devices);
  }
}

int count_sharing(const OpeningTicket& mine, const std::vector<OpeningTicket>& tickets) {
  return static_cast<int>(std::ranges::count_if(tickets, [&](const OpeningTicket& other) {
    return std::memcmp(other.device_id, mine.device_id, sizeof(mine.device_id)) == 0;
  }));
}

std::size_t wanted_region_bytes(const BufferConfig& config, const Group& group,
                                std::size_t control_bytes) {
  std::size_t limit = config.max_symmetric_bytes;
  if (limit == 0) limit = environment().max_symmetric_bytes;
  if (limit == 0) limit = kDefaultSymmetricBytes;
  if (limit > control_bytes) return limit;
  fail(ErrorCode::kInvalidArgument,
       "Buffer (rank {}): max_symmetric_bytes={} is too small, the control area alone needs {}",
       group.rank().value(), limit, control_bytes);
}

device::LaunchLimits launch_limits(const BufferConfig& config, int device, int num_sharing) {
  int num_sms = 0;
  int shared_bytes = 0;
  check_cuda(cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, device),
             "count the multiprocessors");
  check_cuda(cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
             "read the size of shared memory");
  const int usable = num_sharing > 1 ? num_sms - kNumSpareSms : num_sms;
  device::LaunchLimits limits;
  limits.num_free_blocks = std::max(1, usable / num_sharing);
  int wanted = config.num_workers > 0 ? config.num_workers : environment().num_workers;
  if (wanted == 0) wanted = kDefaultNumSms;
  limits.num_waiting_blocks = std::min(wanted, limits.num_free_blocks);
  // The kernels' own, statically allocated shared memory comes out of the same pool.
  limits.shared_bytes_per_block = static_cast<std::size_t>(shared_bytes) - 2048;
  return limits;
}

// Hands out pieces of one block of device memory, or counts them while it has none.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}

  template <class T>
  T* take(std::size_t count) {
    auto* const piece = reinterpret_cast<T*>(base_ + used_);
    used_ += align_up(count * sizeof(T), kPartAlignment);
    return piece;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* base_;
  std::size_t used_ = 0;
};

std::size_t carve_device_state(CudaContext& context, std::byte* base) {
  device::Domain& domain = context.domain;
  CudaLowLatency& low_latency = context.low_latency;
  Carver carver(base);
  const auto ranks = static_cast<std::size_t>(context.num_ranks());
  const auto experts = static_cast<std::size_t>(context.max_num_experts);
  const auto blocks = static_cast<std::size_t>(context.limits.num_free_blocks);
  domain.local = carver.take<device::LocalState>(1);
  domain.regions = carver.take<std::byte*>(ranks);
  domain.peers = carver.take<device::PeerParts>(ranks);
  domain.partials = carver.take<std::int32_t>(
      blocks * CountMatrix::row_length(context.num_ranks(), context.max_num_experts));
  domain.expert_base = carver.take<std::int32_t>(experts);
  domain.group_start = carver.take<std::int32_t>(experts);
  domain.num_rows = carver.take<std::int64_t>(1);
  domain.stage_ends = carver.take<std::uint64_t>(kNumStages);
  low_latency.state = carver.take<kernels::LowLatencyState>(1);
  low_latency.areas = carver.take<std::byte*>(ranks);
  low_latency.masked = carver.take<std::uint32_t>(ranks);
  return carver.used();
}

void make_domain(CudaContext& context, const BufferConfig& config) {
  device::Domain& domain = context.domain;
  domain.rank = context.rank;
  domain.topology = context.topology;
  domain.control = context.layout;
  const std::size_t bytes = carve_device_state(context, nullptr);
  context.device_state = make_device_memory(bytes);
  carve_device_state(context, context.device_state.get());
  if (config.stage_clock == StageClock::kOff) domain.stage_ends = nullptr;
  domain.stress_delay_ns = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(config.stress_delay).count());
  std::vector<std::byte*> regions;
  for (Rank rank(0); rank.value() < context.num_ranks(); rank = rank.next()) {
    regions.push_back(context.memory->region(rank));
  }
  check_cuda(cudaMemcpy(const_cast<std::byte**>(domain.regions), regions.data(),
                        regions.size() * sizeof(std::byte*), cudaMemcpyHostToDevice),
             "copy the regions' addresses");
  context.pinned =
      make_pinned_memory(align_up(sizeof(HostMailbox), kPartAlignment) +
                         kernels::Report::bytes(context.num_ranks(), context.max_num_experts));
  domain.wait.timeout_ns = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(context.timeout).count());
  domain.wait.fault = &context.mailbox().fault;
  domain.wait.cancelled = &context.mailbox().cancelled;
}

OpeningTicket describe_opening(const Group& group, const BufferConfig& config,
                               std::size_t control_bytes) {
  OpeningTicket mine{.max_num_experts = config.max_num_experts,
                     .num_nodes = group.topology().num_nodes,
                     .bytes = wanted_region_bytes(config, group, control_bytes),
                     .device_kind = DeviceKind::kCuda,
                     .device = config.device.index,
                     .num_devices = count_devices(group, config.device.index)};
  if (!mine.has_device()) return mine;  // all ranks must learn of it
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, config.device.index), "read a device's name");
  std::memcpy(mine.device_id, properties.uuid.bytes, sizeof(mine.device_id));
  return mine;
}

void load_kernels() {
  kernels::load_dispatch_kernels();
  kernels::load_combine_kernels();
  kernels::load_barrier_kernel();
  kernels::load_layout_kernel();
  kernels::load_low_latency_kernels();
}

}  // namespace

std::unique_ptr<CudaContext> open_cuda_context(const Group& group, const BufferConfig& config) {
  const TraceScope scope(Operation::kOpen, Stage::kExchange, group.rank());
  auto context = std::make_unique<CudaContext>();
  context->timeout = config.timeout.count() > 0 ? config.timeout : group.timeout();
  const Deadline deadline = Deadline::after(context->timeout);
  context->id = next_buffer_id();
  context->rank = group.rank();
  context->topology = group.topology();
  context->device = config.device.index;
  context->max_num_experts = config.max_num_experts;
  context->survival = config.survival;
  context->layout = ControlLayout{group.num_ranks(), config.max_num_experts};
  const std::size_t control_bytes = align_up(context->layout.total_bytes(), std::size_t{4096});

  const OpeningTicket mine = describe_opening(group, config, control_bytes);
  const std::vector<OpeningTicket> tickets = exchange_tickets(group, mine, deadline);
  require_devices(group, mine, tickets);

  const DeviceScope device(config.device.index);
  load_kernels();
  context->memory =
      open_cuda_memory(group.bootstrap(), least_bytes(tickets), config.device.index, deadline);
  context->arena =
      Arena::make(context->memory, control_bytes, context->memory->size_bytes() - control_bytes,
                  [] { return std::numeric_limits<std::size_t>::max(); });
  const bool ranks_are_threads = std::strcmp(context->memory->kind(), "cuda_inproc") == 0;
  context->order =
      std::make_shared<StreamOrder>(ranks_are_threads ? StreamUse::kOwn : StreamUse::kCallers);
  context->limits = launch_limits(config, config.device.index, count_sharing(mine, tickets));
  make_domain(*context, config);
  context->faults =
      std::make_shared<FaultCheck>(context->pinned, context->memory, context->timeout);
  // Regions are zero and known everywhere afterwards.
  context->low_latency.line_format = agree_on_line_format(
      group.bootstrap(), line_format_of(*context->memory, mine, tickets), deadline);
  return context;
}

}  // namespace moelink
