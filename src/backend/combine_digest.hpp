// What ranks must agree on in a combine.
#pragma once

#include "backend/routing_state.hpp"
#include "moelink/trace.hpp"
#include "protocol/call_digest.hpp"

namespace moelink {

inline CallDigest combine_digest(const CombineConfig& config, const RoutingState& state) {
  const std::int64_t row_bytes =
      config.x.shape[1] * static_cast<std::int64_t>(dtype_size(config.x.dtype));
  CallDigest digest;
  digest.set(DigestField::kOperation, static_cast<std::int64_t>(Operation::kCombine));
  digest.set(DigestField::kDType, static_cast<std::int64_t>(config.x.dtype));
  digest.set(DigestField::kHiddenBytes, row_bytes);
  digest.set(DigestField::kTopkWeights, config.topk_weights ? 1 : 0);
  digest.set(DigestField::kHandle, static_cast<std::int64_t>(state.epoch.value()));
  return digest;
}

}  // namespace moelink
