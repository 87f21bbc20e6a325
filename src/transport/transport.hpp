// One-sided puts between the ranks of different hosts, and the counting of what has arrived.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/deadline.hpp"
#include "moelink/errors.hpp"
#include "transport/arrival_counters.hpp"
#include "transport/region_table.hpp"
#include "transport/registration_ladder.hpp"
#include "transport/transport_config.hpp"

namespace moelink {

enum class PutResult : std::uint8_t {
  kAccepted,
  kRefused,  // no room at the moment: make progress and try again
};

// Until `source` has sent `expected` puts on this key in all epochs of its lane together.
struct ArrivalWait {
  ArrivalKey key;
  Rank source;
  std::uint64_t expected = 0;
  const char* stage = "arrival";  // for messages
};

// Implementations: loopback, libfabric; chaos decorates another one. Used by one thread at a time,
// but for arrivals(). Puts travel and arrive in any order, also those to one peer; nothing but a
// count tells that bytes have arrived. Bytes may need progress() at the receiver to move.
//
// A peer that fails breaks only what is meant for it: puts to it and waits for it throw what
// happened; the others go on.
class Transport {
 public:
  virtual ~Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  Rank rank() const { return rank_; }
  int num_ranks() const { return num_ranks_; }
  virtual std::string describe() const = 0;  // "libfabric tcp;ofi_rxm over eth0"
  // How memory of a GPU can take part; see registration_ladder.hpp.
  virtual std::vector<GpuRegistration> gpu_ladder() const { return {GpuRegistration::kPinnedHost}; }

  // Makes memory of this process a source and a target of puts. It must stay until it is
  // deregistered. Throws Error(kSystem) when it cannot be registered, with the limit that was hit.
  virtual LocalRegion register_region(std::span<std::byte> memory) = 0;
  // What peers need to import the region.
  virtual WireRegion wire_region(LocalRegion region) const = 0;
  // No put from it or into it may be under way.
  virtual void deregister_region(LocalRegion region) = 0;
  // For the life of the transport.
  virtual PeerRegion import_region(Rank peer, const WireRegion& wire) = 0;
  virtual const RegionTable& regions() const = 0;

  // The source range must not change before the put is complete. Does not wait and makes no
  // progress. Throws Error(kInvalidArgument) for a put that does not fit its regions, and what has
  // befallen its peer.
  virtual PutResult try_put(const Put& put) = 0;
  // Moves what can be moved, counts arrivals, completes puts. Returns the number of events.
  virtual int progress() = 0;

  virtual const ArrivalCounters& arrivals() const = 0;
  // Puts are numbered from 1; all up to completed_through() are complete: their source may change.
  virtual std::uint64_t num_accepted() const = 0;
  virtual std::uint64_t completed_through() const = 0;
  virtual std::optional<Rank> oldest_incomplete_peer() const = 0;

  // Thread-safe, as is check_alive.
  virtual bool peer_alive(Rank peer) const;

  // Gives up all resources; puts under way are dropped, and puts and progress are errors from then
  // on. The destructor does the same. For an end in order, flush and meet all ranks first.
  virtual void close() = 0;

  // try_put with progress, until it is accepted. Throws Error(kTimeout) or Error(kPeerLost), naming
  // this rank, the peer, the stage and how long it took.
  void put(const Put& put, const Deadline& deadline, const char* stage = "put");
  // Until all puts are complete. That does not say that they have arrived.
  void flush(const Deadline& deadline, const char* stage = "flush");
  // Until all are here, making progress. Errors also name expected and seen counts.
  void await_arrivals(std::span<const ArrivalWait> waits, const Deadline& deadline);
  void await_arrival(const ArrivalWait& wait, const Deadline& deadline) {
    await_arrivals(std::span(&wait, 1), deadline);
  }
  // Throws what has befallen the peer, if anything has.
  virtual void check_peer(Rank peer, const char* stage) const;
  // The same for a look that every waiter takes now and then: is the peer alive at all?
  void check_alive(Rank peer, const char* stage) const;
  // Throws Error(kTimeout) for a wait whose deadline has passed. Thread-safe.
  [[noreturn]] void fail_missing_arrival(const ArrivalWait& wait, const Deadline& deadline) const;

 protected:
  explicit Transport(const TransportGroup& group);

  void note_closed() { open_ = false; }
  // Throws Error(kInvalidArgument) naming the call once the transport is closed.
  void require_open(const char* call) const;
  // The first failure of a peer is kept and reported by all that concerns the peer.
  void note_peer_failure(Rank peer, ErrorCode code, const std::string& text);

 private:
  struct PeerFailure {
    ErrorCode code = ErrorCode::kPeerLost;
    std::string text;
  };

  bool has_arrived(const ArrivalWait& wait) const;
  PutResult try_put_in(const char* stage, const Put& put);

  Rank rank_;
  int num_ranks_;
  bool open_ = true;
  std::function<bool(Rank)> peer_alive_;
  std::vector<std::optional<PeerFailure>> failures_;
};

// Throws Error(kInvalidArgument) naming each field that is out of range.
void check_config(const TransportGroup& group, const TransportConfig& config);

}  // namespace moelink
