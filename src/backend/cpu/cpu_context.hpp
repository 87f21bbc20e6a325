// What the operations of one CPU buffer share.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "backend/cpu/control_area.hpp"
#include "backend/cpu/network/remote_control.hpp"
#include "backend/cpu/signal_board.hpp"
#include "backend/cpu/stream.hpp"
#include "backend/cpu/worker_team.hpp"
#include "moelink/config.hpp"
#include "moelink/topology.hpp"
#include "moelink/trace.hpp"
#include "network/network.hpp"
#include "protocol/relay_plan.hpp"
#include "symm/arena.hpp"
#include "transport/backoff.hpp"

namespace moelink {

class LowLatencyCourier;
struct LowLatencyContext;

struct CpuContext {
  CpuContext();
  ~CpuContext();

  std::uint64_t id = 0;  // of the buffer, unique in this process
  Rank rank;
  Topology topology;
  std::chrono::milliseconds timeout{0};
  Survival survival = Survival::kRaise;
  int num_workers = 1;
  Backoff::Cores cores = Backoff::Cores::kOwn;  // shared: more ranks than cores on this host

  std::shared_ptr<ControlArea> control;
  std::shared_ptr<Arena> arena;    // receive tensors; peers read and write it
  std::shared_ptr<Arena> results;  // combined tensors, in memory that no peer sees
  std::unique_ptr<SignalBoard> signals;
  // To ranks of other nodes; null if there are none.
  RelayPlan relay;
  std::unique_ptr<Network> network;
  std::unique_ptr<RemoteControl> remote;
  std::unique_ptr<LowLatencyCourier> courier;
  WorkerTeam workers;

  Epoch epoch;                     // of the last operation begun
  Epoch completed;                 // of the last operation in which this rank has done its part
  std::size_t expected_bytes = 0;  // what the next dispatch will probably need
  // Staging areas of the last operation. Peers may still read them until all have begun the next
  // one.
  std::vector<std::shared_ptr<void>> retired;
  // Memory that a masked rank might still write.
  std::vector<std::shared_ptr<void>> quarantine;

  LowLatencyContext* low_latency = nullptr;  // of the same buffer

  std::atomic<std::uint64_t> num_window_misses{0};
  std::atomic<std::uint64_t> num_staged_combines{0};

  Stream stream;  // last: its thread uses everything above

  int num_ranks() const { return topology.num_ranks; }
  WaitContext wait_context(Operation operation, Stage stage) const {
    return WaitContext{operation, stage, Deadline::after(timeout)};
  }
};

// Workers of one call: what it asked for, else what the buffer has.
inline int workers_for(const CpuContext& context, const StreamOptions& options) {
  return options.num_workers > 0 ? options.num_workers : context.num_workers;
}

}  // namespace moelink
