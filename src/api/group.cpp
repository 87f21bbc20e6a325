// Groups of ranks over one of the bootstraps.
#include "moelink/group.hpp"

#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "base/environment.hpp"
#include "base/launcher_environment.hpp"
#include "bootstrap/bootstrap.hpp"
#include "bootstrap/callback/callback_bootstrap.hpp"
#include "bootstrap/launcher.hpp"
#include "bootstrap/tcp/tcp_bootstrap.hpp"
#include "bootstrap/threads/thread_bootstrap.hpp"
#include "symm/host_identity.hpp"

namespace moelink {

namespace {

// MOELINK_TIMEOUT_MS counts where the caller has left the default.
std::chrono::milliseconds choose_timeout(const GroupOptions& options) {
  const bool left_at_default = options.timeout == GroupOptions{}.timeout;
  const auto timeout =
      left_at_default ? environment().timeout.value_or(options.timeout) : options.timeout;
  if (timeout.count() <= 0) {
    fail(ErrorCode::kInvalidArgument, "group: timeout is {} ms, expected more than 0",
         timeout.count());
  }
  return timeout;
}

// 0: a node for each host.
int wanted_nodes(int num_ranks, const GroupOptions& options) {
  const int num_nodes = options.num_nodes != 0 ? options.num_nodes : environment().num_nodes;
  if (num_nodes < 0 || num_nodes > num_ranks || (num_nodes > 0 && num_ranks % num_nodes != 0)) {
    fail(ErrorCode::kInvalidArgument,
         "group: num_nodes is {}{}, expected a divisor of num_ranks, which is {}", num_nodes,
         options.num_nodes != 0 ? "" : " (from MOELINK_NODES)", num_ranks);
  }
  return num_nodes;
}

Topology choose_topology(Bootstrap& bootstrap, const GroupOptions& options) {
  const int num_ranks = bootstrap.num_ranks();
  const int num_nodes = wanted_nodes(num_ranks, options);
  if (num_nodes > 0) return {.num_ranks = num_ranks, .num_nodes = num_nodes};
  if (num_ranks == 1) return {};
  std::vector<HostIdentity> hosts;
  const std::string mine = HostIdentity::of_this_process(0).encode();
  for (const std::string& blob : bootstrap.all_gather(mine, "finding the hosts of ranks",
                                                      Deadline::after(choose_timeout(options)))) {
    hosts.push_back(HostIdentity::decode(blob));
  }
  return topology_of(hosts);
}

}  // namespace

Group::Group(std::shared_ptr<Bootstrap> bootstrap, const GroupOptions& options)
    : bootstrap_(std::move(bootstrap)),
      topology_(choose_topology(*bootstrap_, options)),
      timeout_(choose_timeout(options)) {}

Group Group::from_callback(Rank rank, int num_ranks, AllGather all_gather,
                           const GroupOptions& options) {
  return Group(std::make_shared<CallbackBootstrap>(rank, num_ranks, std::move(all_gather)),
               options);
}

Group Group::from_environment(const GroupOptions& options) {
  return connect(read_launcher(launcher_variable, environment().secret), options);
}

Group Group::connect(const RendezvousConfig& config, const GroupOptions& options) {
  // Before any waiting, so that a wrong option shows at once.
  if (config.num_ranks > 0) wanted_nodes(config.num_ranks, options);
  const Deadline deadline = Deadline::after(choose_timeout(options));
  return Group(open_tcp_bootstrap(config, deadline), options);
}

std::vector<Group> Group::of_threads(int num_ranks, const GroupOptions& options) {
  std::vector<Group> groups;
  for (auto& bootstrap : ThreadBootstrap::make(num_ranks)) {
    GroupOptions own = options;
    own.num_nodes = std::max(1, wanted_nodes(num_ranks, options));  // one process is on one host
    groups.push_back(Group(std::move(bootstrap), own));
  }
  return groups;
}

Rank Group::rank() const { return bootstrap_->rank(); }

int Group::num_ranks() const { return topology_.num_ranks; }

std::vector<std::string> Group::all_gather(const std::string& blob) const {
  return bootstrap_->all_gather(blob, "all_gather", Deadline::after(timeout_));
}

void Group::barrier() const { bootstrap_->barrier("barrier", Deadline::after(timeout_)); }

}  // namespace moelink
