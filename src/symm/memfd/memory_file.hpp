// A nameless file in memory that holds one rank's region.
#pragma once

#include <cstddef>

#include "base/unique_fd.hpp"

namespace moelink {

// Sparse, zero-filled, of exactly `bytes` for ever, so that no rank can make another one's access
// fail by truncating it. Throws Error(kSystem) with the limit that was hit.
UniqueFd make_memory_file(std::size_t bytes);

// Throws Error(kInternal) unless `fd`, which came from another process, was made by
// make_memory_file(bytes).
void require_memory_file(int fd, std::size_t bytes);

}  // namespace moelink
