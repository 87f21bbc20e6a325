// Symmetric memory of ranks that are threads of one process.
#pragma once

#include <memory>

#include "symm/symmetric_memory.hpp"

namespace moelink {

// Collective. As open_symmetric_memory, for ranks that are known to share this process: all see
// each region at one address.
std::shared_ptr<SymmetricMemory> open_inproc_memory(Bootstrap& bootstrap, std::size_t size_bytes,
                                                    const Deadline& deadline);

}  // namespace moelink
