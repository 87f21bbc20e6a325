// The functions of the CUDA driver that manage memory and addresses.
#pragma once

#include <cuda.h>

#include "base/cuda/check.hpp"

namespace moelink {

// Looked up together, before anything is made, so that releasing never has to look one up.
struct MemoryDriver {
  decltype(&cuMemCreate) create = cuda_driver<decltype(cuMemCreate)>("cuMemCreate");
  decltype(&cuMemRelease) release = cuda_driver<decltype(cuMemRelease)>("cuMemRelease");
  decltype(&cuMemExportToShareableHandle) export_handle =
      cuda_driver<decltype(cuMemExportToShareableHandle)>("cuMemExportToShareableHandle");
  decltype(&cuMemImportFromShareableHandle) import_handle =
      cuda_driver<decltype(cuMemImportFromShareableHandle)>("cuMemImportFromShareableHandle");
  decltype(&cuMemGetAllocationGranularity) granularity =
      cuda_driver<decltype(cuMemGetAllocationGranularity)>("cuMemGetAllocationGranularity");
  decltype(&cuMemAddressReserve) reserve =
      cuda_driver<decltype(cuMemAddressReserve)>("cuMemAddressReserve");
  decltype(&cuMemAddressFree) free = cuda_driver<decltype(cuMemAddressFree)>("cuMemAddressFree");
  decltype(&cuMemMap) map = cuda_driver<decltype(cuMemMap)>("cuMemMap");
  decltype(&cuMemUnmap) unmap = cuda_driver<decltype(cuMemUnmap)>("cuMemUnmap");
  decltype(&cuMemSetAccess) set_access = cuda_driver<decltype(cuMemSetAccess)>("cuMemSetAccess");
  decltype(&cuDeviceGetAttribute) attribute =
      cuda_driver<decltype(cuDeviceGetAttribute)>("cuDeviceGetAttribute");
};

inline const MemoryDriver& memory_driver() {
  static const MemoryDriver functions;
  return functions;
}

}  // namespace moelink
