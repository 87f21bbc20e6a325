// Refuses blobs that are too large before anything is sent.
#include "bootstrap/tcp/blob_limit.hpp"

#include "base/check.hpp"

namespace moelink::tcp {

void check_blob_size(Rank rank, const char* what, std::size_t num_bytes, std::size_t max_bytes) {
  if (num_bytes <= max_bytes) return;
  fail(ErrorCode::kInvalidArgument, "rank {}: {}: blob has {} bytes, expected at most {}",
       rank.value(), what, num_bytes, max_bytes);
}

}  // namespace moelink::tcp
