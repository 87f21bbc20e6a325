// Where the amount of memory that a process may still take is read from.
#pragma once

#include <cstddef>
#include <filesystem>

namespace moelink {

struct MemorySources {
  std::filesystem::path meminfo = "/proc/meminfo";
  std::filesystem::path own_cgroups = "/proc/self/cgroup";
  std::filesystem::path cgroup_root = "/sys/fs/cgroup";
};

// The least of MemAvailable and what each memory cgroup on the process's path has left (version 2,
// or version 1 where version 2 has no memory controller). File cache that the kernel can drop
// counts as left. SIZE_MAX if nothing can be read.
std::size_t available_memory_bytes(const MemorySources& sources);

}  // namespace moelink
