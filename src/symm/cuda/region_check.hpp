// Errors of CUDA calls that concern one region.
#pragma once

#include <cstddef>

#include "base/check.hpp"
#include "base/cuda/check.hpp"
#include "moelink/types.hpp"
#include "symm/address_range.hpp"

namespace moelink {

struct RegionSite {
  Rank owner;
  int device = 0;         // that the call is for
  std::size_t bytes = 0;  // of the region
};

inline constexpr const char* kChooseAnotherKind =
    "let every rank see all GPUs, or set MOELINK_CUDA_MEMORY to ipc or pinned";

// `action` goes before "the region of rank ...", `remedy` says what to do. The rank at which the
// call failed is named by the collective step.
template <class Result>
void check_region(Result result, const char* action, const RegionSite& site, const char* remedy) {
  if (result == Result{}) return;  // cudaSuccess, CUDA_SUCCESS
  throw_cuda_error(result, fmt::format("{} the region of rank {} ({} bytes, device {}; {})", action,
                                       site.owner.value(), site.bytes, site.device, remedy)
                               .c_str());
}

}  // namespace moelink
