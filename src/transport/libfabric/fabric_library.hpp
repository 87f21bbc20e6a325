// libfabric, loaded at run time.
#pragma once

#include <rdma/fabric.h>

#include <string>

#include "transport/registration_ladder.hpp"

namespace moelink {

// The few functions that are not reached through an object of libfabric's. Never unloaded: its
// providers leave threads and exit handlers behind.
struct FabricLibrary {
  decltype(&::fi_getinfo) getinfo = nullptr;
  decltype(&::fi_freeinfo) freeinfo = nullptr;
  decltype(&::fi_dupinfo) dupinfo = nullptr;
  decltype(&::fi_fabric) fabric = nullptr;
  decltype(&::fi_strerror) strerror = nullptr;
  decltype(&::fi_version) version = nullptr;

  FabricVersion loaded_version() const;
  // "Connection refused (-111)" for a result of libfabric's.
  std::string describe(long result) const;
};

// Loads it at the first call. Throws Error(kUnsupported) with the loader's reason.
const FabricLibrary& fabric_library();

}  // namespace moelink
