// One region of equal size per rank, readable and writable by all ranks of a host.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "base/deadline.hpp"
#include "bootstrap/bootstrap.hpp"
#include "moelink/types.hpp"

namespace moelink {

// Implementations: memfd (ranks are processes), inproc (ranks are threads of one process), and
// those of memory for GPUs, which open_cuda_memory chooses from. The object and its mappings live
// until the last holder of a shared_ptr drops it, also after peers have gone: memory that a peer
// gave up stays mapped here.
class SymmetricMemory {
 public:
  virtual ~SymmetricMemory() = default;

  virtual Rank rank() const = 0;
  virtual int num_ranks() const = 0;
  // Size of each region: what was asked for, rounded up to 4096, for a GPU to what it allocates by
  // (2 MiB). Memory of the CPU costs something only once it is touched, that for a GPU at once.
  virtual std::size_t size_bytes() const = 0;
  // Start of the region of `rank` as mapped here; zero-filled at first. 2 MiB aligned. For a GPU it
  // is an address for its kernels and copies, not for the CPU.
  virtual std::byte* region(Rank rank) const = 0;
  std::byte* local() const { return region(rank()); }

  // True while the process (or thread) behind `rank` has not died or closed its end. Cheap enough
  // to ask every few milliseconds; thread-safe.
  virtual bool peer_alive(Rank rank) const = 0;
  // Tells peers that this rank has gone (peer_alive turns false there); its own view of them stays.
  // Thread-safe, idempotent.
  virtual void announce_departure() = 0;

  // Gives the pages of [offset, offset + bytes) of the own region back to the system; they read as
  // zero afterwards. Both must be multiples of 4096. Memory for a GPU is kept with what is in it.
  virtual void discard(std::size_t offset, std::size_t bytes) = 0;

  // "memfd", "inproc", "cuda_inproc", "cuda_vmm", "cuda_fabric", "cuda_ipc", "cuda_pinned"
  virtual const char* kind() const = 0;
};

// Collective. Chooses inproc when all ranks share this process, otherwise memfd. Throws
// Error(kUnsupported) naming the ranks if they are on different hosts, Error(kSystem) with the
// limit that was hit if the region cannot be made (all ranks throw, naming the rank that failed),
// Error(kInvalidArgument) if ranks ask for different sizes or for nothing.
std::shared_ptr<SymmetricMemory> open_symmetric_memory(Bootstrap& bootstrap, std::size_t size_bytes,
                                                       const Deadline& deadline);

// Bytes that this process may still take: the least of free memory and its cgroup's limit.
std::size_t available_memory_bytes();

}  // namespace moelink
