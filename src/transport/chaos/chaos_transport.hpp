// A transport that does to another one's traffic whatever a network may do to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "transport/transport.hpp"

namespace moelink {

struct ChaosOptions {
  std::uint64_t seed = 1;     // the same seed and calls give the same decisions
  int refuse_percent = 20;    // of puts, which then must be tried again
  int split_percent = 30;     // of puts, into 2, 4 or 8 pieces that may be empty
  int pause_percent = 50;     // of calls of progress() that pass nothing on, so that puts bunch up
  int max_delay_rounds = 6;   // calls of progress() that pass on others first
  std::size_t max_held = 32;  // pieces that may be held back at one time
};

// Only what the contract of Transport allows: puts are reordered, delayed, split, bunched and
// refused, but neither lost nor repeated, and sources are not touched once they are complete.
std::unique_ptr<Transport> make_chaos_transport(std::unique_ptr<Transport> inner,
                                                const ChaosOptions& options);

}  // namespace moelink
