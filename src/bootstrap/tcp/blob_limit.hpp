// The size limit of blobs.
#pragma once

#include <cstddef>

#include "moelink/types.hpp"

namespace moelink::tcp {

// Throws Error(kInvalidArgument) when a blob is larger than the limit.
void check_blob_size(Rank rank, const char* what, std::size_t num_bytes, std::size_t max_bytes);

}  // namespace moelink::tcp
