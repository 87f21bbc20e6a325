// What libfabric's shm provider leaves behind when a process is killed.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "conformance/forked_bootstrap.hpp"

namespace moelink::test {

// Files of this process, which peers have mapped already: they no longer need the names.
inline void remove_own_shm_files() {
  namespace fs = std::filesystem;
  const std::string prefix = std::to_string(::getpid()) + ":";
  std::error_code error;
  std::vector<fs::path> own;
  for (const auto& entry : fs::directory_iterator("/dev/shm", error)) {
    if (entry.path().filename().string().starts_with(prefix)) own.push_back(entry.path());
  }
  for (const fs::path& path : own) fs::remove(path, error);
}

[[noreturn]] inline void die_without_leftovers() {
  remove_own_shm_files();
  die_by_sigkill();
}

}  // namespace moelink::test
