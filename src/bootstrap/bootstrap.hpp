// How ranks exchange small blobs before any shared memory or network exists.
#pragma once

#include <string>
#include <vector>

#include "base/deadline.hpp"
#include "moelink/types.hpp"

namespace moelink {

class Bootstrap {
 public:
  virtual ~Bootstrap() = default;

  virtual Rank rank() const = 0;
  virtual int num_ranks() const = 0;

  // Collective: returns the blobs of all ranks in rank order. Blobs may differ in size and be
  // empty. Throws Error(kTimeout) or Error(kPeerLost) naming `what` and the ranks that are missing.
  virtual std::vector<std::string> all_gather(const std::string& blob, const char* what,
                                              const Deadline& deadline) = 0;

  // Collective: returns when all ranks have called it. Fails as all_gather does.
  virtual void barrier(const char* what, const Deadline& deadline) {
    all_gather(std::string(), what, deadline);
  }

  // The group that this one is a part of; itself unless it is a part.
  virtual Bootstrap& whole() { return *this; }
  // Of the blobs of all ranks of the whole: those of this part.
  virtual std::vector<std::string> own_part(std::vector<std::string> blobs) const { return blobs; }
};

}  // namespace moelink
