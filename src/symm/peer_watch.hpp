// Tells who of a group is still there.
#pragma once

#include "moelink/types.hpp"

namespace moelink {

// What SymmetricMemory promises of its functions of these names. Its end announces the departure.
class PeerWatch {
 public:
  virtual ~PeerWatch() = default;

  virtual bool alive(Rank peer) const = 0;
  virtual void announce_departure() = 0;
};

}  // namespace moelink
