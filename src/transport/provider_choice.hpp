// Which libfabric provider a group of ranks uses.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "moelink/types.hpp"

namespace moelink {

// What may be asked for, the best first. The last one connects only processes of one host.
inline constexpr std::string_view kProviders[] = {"efa", "cxi", "verbs", "tcp", "shm"};

// "tcp" of "tcp;ofi_rxm": the provider without the layers above it.
std::string base_provider(std::string_view name);

// Throws Error(kInvalidArgument) for a name that is not in kProviders and not empty, saying why for
// those that are known not to work.
void check_provider_wish(const std::string& wish, Rank rank);

// The wish if all ranks have it, otherwise, without a wish, the first of kProviders that all ranks
// have and that reaches other hosts. `available` lists base names by rank. Throws
// Error(kUnsupported) naming the first rank that lacks it, and what it has; alike at all ranks.
std::string choose_provider(const std::vector<std::vector<std::string>>& available,
                            const std::string& wish);

}  // namespace moelink
