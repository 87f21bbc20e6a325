// Symmetric memory of ranks that are processes of one host.
#pragma once

#include <memory>

#include "symm/symmetric_memory.hpp"

namespace moelink {

// Collective. As open_symmetric_memory, for ranks that are known to be on one host; ranks may share
// a process.
std::shared_ptr<SymmetricMemory> open_memfd_memory(Bootstrap& bootstrap, std::size_t size_bytes,
                                                   const Deadline& deadline);

}  // namespace moelink
