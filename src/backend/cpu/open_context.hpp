// Opens the shared memory of a CPU buffer.
#pragma once

#include <memory>

#include "backend/cpu/cpu_context.hpp"
#include "moelink/config.hpp"
#include "moelink/group.hpp"

namespace moelink {

// Collective. Throws Error(kInvalidArgument), alike at all ranks, when the configurations differ in
// what must be equal.
std::unique_ptr<CpuContext> open_cpu_context(const Group& group, const BufferConfig& config);

}  // namespace moelink
