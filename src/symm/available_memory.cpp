// Reads how much memory the machine and the process's cgroups have left.
#include "symm/available_memory.hpp"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string>

#include "symm/symmetric_memory.hpp"

namespace moelink {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();
constexpr std::size_t kKibibyte = 1024;

struct CgroupFiles {
  const char* limit;
  const char* usage;
  const char* inactive_file;  // keys of memory.stat: cache that the kernel drops under pressure
  const char* active_file;
};

constexpr CgroupFiles kVersion2 = {"memory.max", "memory.current", "inactive_file", "active_file"};
constexpr CgroupFiles kVersion1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                                   "total_inactive_file", "total_active_file"};

// Nothing if the file is missing or says "max".
std::optional<std::size_t> number_in(const fs::path& file) {
  std::ifstream stream(file);
  std::size_t number = 0;
  if (stream >> number) return number;
  return std::nullopt;
}

// The number that follows `key` in a file of "key number" lines.
std::optional<std::size_t> number_after(const fs::path& file, const std::string& key) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    std::istringstream words(line);
    std::string word;
    std::size_t number = 0;
    if (words >> word >> number && word == key) return number;
  }
  return std::nullopt;
}

std::size_t left_in_cgroup(const fs::path& folder, const CgroupFiles& files) {
  const auto limit = number_in(folder / files.limit);
  const auto usage = number_in(folder / files.usage);
  if (!limit || !usage) return kUnlimited;
  const fs::path stat = folder / "memory.stat";
  const std::size_t cache = number_after(stat, files.inactive_file).value_or(0) +
                            number_after(stat, files.active_file).value_or(0);
  const std::size_t used = *usage - std::min(*usage, cache);
  return *limit - std::min(*limit, used);
}

// A container may see a path that does not exist below its own root: then only the root counts.
std::size_t left_along(const fs::path& root, const std::string& path, const CgroupFiles& files) {
  std::size_t least = left_in_cgroup(root, files);
  fs::path folder = root;
  for (const fs::path& part : fs::path(path).relative_path()) {
    folder /= part;
    least = std::min(least, left_in_cgroup(folder, files));
  }
  return least;
}

bool names_memory(const std::string& controllers) {
  std::istringstream stream(controllers);
  for (std::string name; std::getline(stream, name, ',');) {
    if (name == "memory") return true;
  }
  return false;
}

std::size_t left_in_cgroups(const MemorySources& sources) {
  std::size_t least = kUnlimited;
  std::ifstream stream(sources.own_cgroups);
  for (std::string line; std::getline(stream, line);) {
    const auto first = line.find(':');
    const auto second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) {
      least = std::min(least, left_along(sources.cgroup_root, path, kVersion2));
    } else if (names_memory(controllers)) {
      least = std::min(least, left_along(sources.cgroup_root / "memory", path, kVersion1));
    }
  }
  return least;
}

}  // namespace

std::size_t available_memory_bytes(const MemorySources& sources) {
  const auto free_kib = number_after(sources.meminfo, "MemAvailable:");
  const std::size_t free_bytes = free_kib ? *free_kib * kKibibyte : kUnlimited;
  return std::min(free_bytes, left_in_cgroups(sources));
}

std::size_t available_memory_bytes() { return available_memory_bytes(MemorySources{}); }

}  // namespace moelink
