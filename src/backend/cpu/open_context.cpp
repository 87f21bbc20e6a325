// Sizes the regions, opens them at all ranks, and starts the parts of the context.
#include "backend/cpu/open_context.hpp"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <limits>

#include "backend/cpu/network/low_latency_courier.hpp"
#include "backend/open_network.hpp"
#include "backend/opening.hpp"
#include "base/check.hpp"
#include "base/environment.hpp"
#include "base/trace_scope.hpp"
#include "protocol/limits.hpp"
#include "symm/node_memory.hpp"

namespace moelink {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

int num_available_cores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (::sched_getaffinity(0, sizeof(cores), &cores) != 0) return 1;
  return std::max(1, CPU_COUNT(&cores));
}

// What a process may map or write at most, by `resource`; no limit: the largest number.
std::size_t resource_limit(int resource) {
  rlimit limit{};
  const bool known = ::getrlimit(static_cast<__rlimit_resource_t>(resource), &limit) == 0;
  if (!known || limit.rlim_cur == RLIM_INFINITY) return std::numeric_limits<std::size_t>::max();
  return limit.rlim_cur;
}

// The arena only reserves addresses, so by default it may grow to all memory of the machine, as far
// as the limits of the process allow: a file per rank, and the regions of all ranks, the results
// and half as much again for everything else in the address space.
std::size_t default_limit(int num_ranks) {
  const auto pages = static_cast<std::size_t>(::sysconf(_SC_PHYS_PAGES));
  const std::size_t memory = pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t num_shares = 2 * (static_cast<std::size_t>(num_ranks) + 2);
  return std::min({memory, resource_limit(RLIMIT_FSIZE), resource_limit(RLIMIT_AS) / num_shares});
}

std::size_t arena_capacity(const BufferConfig& config, const Group& group,
                           std::size_t control_bytes) {
  std::size_t limit = config.max_symmetric_bytes;
  if (limit == 0) limit = environment().max_symmetric_bytes;
  const bool is_default = limit == 0;
  if (is_default) limit = default_limit(group.num_ranks()) / kHugePage * kHugePage;
  if (limit > control_bytes) return (limit - control_bytes) / kPage * kPage;
  if (is_default) {
    fail(ErrorCode::kSystem,
         "Buffer (rank {}): the limits of this process (ulimit -v, ulimit -f) leave {} bytes of "
         "symmetric memory for each of {} ranks, the control area alone needs {}: raise them",
         group.rank().value(), limit, group.num_ranks(), control_bytes);
  }
  fail(ErrorCode::kInvalidArgument,
       "Buffer (rank {}): max_symmetric_bytes={} is too small, the control area alone needs {}",
       group.rank().value(), limit, control_bytes);
}

// Memory for results, which no peer sees: an arena of its own, so that freed results are used again
// instead of going back to the system page by page.
std::shared_ptr<Arena> make_result_arena(std::size_t capacity, const Deadline& deadline) {
  const Group alone = Group::of_threads(1, GroupOptions{.num_nodes = 1}).front();
  auto memory = open_symmetric_memory(alone.bootstrap(), capacity, deadline);
  return Arena::make(std::move(memory), 0, capacity);
}

void connect_nodes(CpuContext& context, const Group& group, const BufferConfig& config,
                   const Deadline& deadline) {
  const NetworkPath path = choose_network_path(config);
  if (path == NetworkPath::kHierarchical && config.survival == Survival::kMask) {
    fail(
        ErrorCode::kInvalidArgument,
        "Buffer (rank {}): network_path is hierarchical and survival is mask, between {} nodes: "
        "tokens cannot do without the rank that carries them, expected network_path direct or auto",
        group.rank().value(), group.topology().num_nodes);
  }
  context.relay = {.topology = group.topology(), .path = path};
  context.network = open_network(group, path, config.max_num_experts, deadline);
  context.remote =
      std::make_unique<RemoteControl>(context.control, *context.network, context.signals->masks(),
                                      config.survival, context.timeout);
  context.signals->connect(*context.remote);
}

}  // namespace

CpuContext::CpuContext() = default;
CpuContext::~CpuContext() = default;

std::unique_ptr<CpuContext> open_cpu_context(const Group& group, const BufferConfig& config) {
  const TraceScope scope(Operation::kOpen, Stage::kExchange, group.rank());
  auto context = std::make_unique<CpuContext>();
  context->timeout = config.timeout.count() > 0 ? config.timeout : group.timeout();
  const Deadline deadline = Deadline::after(context->timeout);
  const ControlLayout layout{group.num_ranks(), config.max_num_experts};
  const std::size_t control_bytes = align_up(layout.total_bytes(), kPage);
  const OpeningTicket mine{.max_num_experts = config.max_num_experts,
                           .num_nodes = group.topology().num_nodes,
                           .bytes = arena_capacity(config, group, control_bytes),
                           .network = wished_network(),
                           .network_path = static_cast<std::int64_t>(choose_network_path(config)),
                           .survival = static_cast<std::int64_t>(config.survival)};
  const std::size_t capacity = least_bytes(exchange_tickets(group, mine, deadline));
  const std::size_t region_bytes = align_up(control_bytes + capacity, kPage);
  const bool has_network = uses_network(group.topology());
  auto memory = has_network
                    ? open_node_memory(group.bootstrap(), group.topology(), region_bytes, deadline)
                    : open_symmetric_memory(group.bootstrap(), region_bytes, deadline);

  const int num_cores = num_available_cores();
  const int num_here = has_network ? count_ranks_on_host(group, deadline) : group.num_ranks();
  context->cores = num_here > num_cores ? Backoff::Cores::kShared : Backoff::Cores::kOwn;
  context->id = next_buffer_id();
  context->rank = group.rank();
  context->topology = group.topology();
  context->survival = config.survival;
  context->num_workers = config.num_workers;
  if (context->num_workers == 0) context->num_workers = environment().num_workers;
  if (context->num_workers == 0) {
    context->num_workers = std::max(1, num_cores / num_here);
  }
  context->arena = Arena::make(memory, control_bytes, capacity);
  context->results = make_result_arena(capacity, deadline);
  context->control = std::make_shared<ControlArea>(std::move(memory), layout);
  context->signals =
      std::make_unique<SignalBoard>(context->control, context->cores, config.survival);
  if (has_network) connect_nodes(*context, group, config, deadline);
  return context;
}

}  // namespace moelink
