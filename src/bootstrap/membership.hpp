// The one check of rank and number of ranks.
#pragma once

#include "moelink/types.hpp"

namespace moelink {

// Throws Error(kInvalidArgument) unless num_ranks > 0 and 0 <= rank < num_ranks.
void check_membership(const char* what, Rank rank, int num_ranks);

}  // namespace moelink
