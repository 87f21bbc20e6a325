// Checks rank and number of ranks.
#include "bootstrap/membership.hpp"

#include "base/check.hpp"

namespace moelink {

void check_membership(const char* what, Rank rank, int num_ranks) {
  Violations violations(what);
  violations.require(num_ranks > 0, "num_ranks is {}, expected at least 1", num_ranks);
  violations.require(rank.value() >= 0 && (num_ranks <= 0 || rank.value() < num_ranks),
                     "rank is {}, expected 0 to {}", rank.value(), num_ranks - 1);
  violations.throw_if_any();
}

}  // namespace moelink
