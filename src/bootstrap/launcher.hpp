// What torchrun, mpirun and srun tell a rank in its environment, as the config of a rendezvous.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "moelink/group.hpp"

namespace moelink {

// Value of a variable, or nullptr when it is not set.
using VariableLookup = std::function<const char*(const char*)>;

// The launcher is the first one whose rank variable is set:
//   by hand          MOELINK_RANK             MOELINK_NUM_RANKS
//   torchrun         RANK                     WORLD_SIZE
//   Open MPI         OMPI_COMM_WORLD_RANK     OMPI_COMM_WORLD_SIZE
//   MPICH, Intel MPI PMI_RANK                 PMI_SIZE
//   PMIx             PMIX_RANK                OMPI_COMM_WORLD_SIZE, SLURM_STEP_NUM_TASKS,
//   SLURM_NTASKS Slurm (srun)     SLURM_PROCID             SLURM_STEP_NUM_TASKS, SLURM_NTASKS
//
// Host of rank 0, the first that is known:
//   MOELINK_HOST, MASTER_ADDR,
//   127.0.0.1 if all ranks are on this host (OMPI_COMM_WORLD_LOCAL_SIZE or MPI_LOCALNRANKS equals
//   the number of ranks, or the Slurm list has one host), the first host in SLURM_STEP_NODELIST,
//   SLURM_JOB_NODELIST, SLURM_LAUNCH_NODE_IPADDR, 127.0.0.1, unless OMPI_COMM_WORLD_LOCAL_SIZE or
//   MPI_LOCALNRANKS says that there are more hosts.
//
// Port of rank 0, the first that is known:
//   MOELINK_PORT,
//   MASTER_PORT + 1 (MASTER_PORT itself belongs to torch's store),
//   derived from SLURM_JOB_ID and SLURM_STEP_ID, or from PMIX_NAMESPACE: the same on all ranks,
//   kDefaultRendezvousPort.
//
// Throws Error(kInvalidArgument) naming the variable that is missing or malformed.
RendezvousConfig read_launcher(const VariableLookup& lookup, std::string secret);

inline constexpr std::uint16_t kDefaultRendezvousPort = 23450;

// Hosts of a Slurm list such as "node[003-005,9],login1", in order. Throws Error(kInvalidArgument)
// naming `variable` when the list is malformed.
std::vector<std::string> expand_host_list(std::string_view list, const char* variable);

}  // namespace moelink
