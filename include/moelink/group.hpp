// A group of ranks: who takes part, and a slow, safe way for them to exchange small blobs.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "moelink/topology.hpp"
#include "moelink/types.hpp"

namespace moelink {

class Bootstrap;

// Receives this rank's blob, returns the blobs of all ranks in rank order. Collective.
using AllGather = std::function<std::vector<std::string>(const std::string&)>;

struct GroupOptions {
  // Longest wait for the other ranks, in each collective of the group.
  std::chrono::milliseconds timeout{100'000};
  // Nodes of equal size, between which traffic takes the network: so many, also where hosts are
  // fewer (emulated nodes). 0: MOELINK_NODES if set, else a node for each host, which the ranks
  // tell each other when the group is made; they must be numbered host by host.
  int num_nodes = 0;
};

struct RendezvousConfig {
  Rank rank{};
  int num_ranks = 1;
  std::string host = "127.0.0.1";  // where rank 0 listens
  std::uint16_t port = 0;
  // Shared by the job's ranks only; a joiner proves that it knows it without sending it.
  std::string secret{};
};

// A copyable handle; copies share one bootstrap. Collective calls must be made by one thread at a
// time.
class Group {
 public:
  // Over any all-gather, such as a torch process group's or mpi4py's. Calls it, unless the number
  // of nodes is given.
  static Group from_callback(Rank rank, int num_ranks, AllGather all_gather,
                             const GroupOptions& options = {});

  // From the variables set by torchrun, mpirun (Open MPI, MPICH, PMIx) or Slurm, and
  // MOELINK_SECRET. Throws Error(kInvalidArgument) naming the variable that is missing or wrong.
  static Group from_environment(const GroupOptions& options = {});

  // Rank 0 listens at host:port, the others connect. Throws Error(kPeerLost) when refused, which
  // happens for a wrong secret, a taken rank or another number of ranks; Error(kTimeout) when ranks
  // are missing (it names them).
  static Group connect(const RendezvousConfig& config, const GroupOptions& options = {});

  // One group per thread of this process; element i belongs to rank i.
  static std::vector<Group> of_threads(int num_ranks, const GroupOptions& options = {});

  Rank rank() const;
  int num_ranks() const;
  const Topology& topology() const { return topology_; }
  std::chrono::milliseconds timeout() const { return timeout_; }

  std::vector<std::string> all_gather(const std::string& blob) const;
  void barrier() const;

  Bootstrap& bootstrap() const { return *bootstrap_; }

 private:
  Group(std::shared_ptr<Bootstrap> bootstrap, const GroupOptions& options);

  std::shared_ptr<Bootstrap> bootstrap_;
  Topology topology_;
  std::chrono::milliseconds timeout_;
};

}  // namespace moelink
