// What ranks must agree on in one collective call, and what they say when they do not.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "moelink/host_device.hpp"

namespace moelink {

// The names are those of the arguments that the user passed.
enum class DigestField {
  kOperation,    // trace.hpp's Operation
  kDType,        // of x
  kHiddenBytes,  // bytes of a row of x
  kScaleDType,   // -1: no scales
  kScaleBytes,   // bytes of a row of scales
  kNumTopk,
  kTopkDType,    // -1: no topk_idx
  kTopkWeights,  // 1 if given
  kNumExperts,
  kLayout,
  kExpertAlignment,
  kWorstTokens,  // 1 if num_worst_tokens was given
  kMaxTokens,    // num_max_tokens_per_rank of the low latency mode
  kHandle,       // epoch of the dispatch that made the handle; 0: none
};

inline constexpr std::size_t kNumDigestFields = 14;
inline constexpr const char* kDigestFieldNames[kNumDigestFields] = {
    "operation",
    "dtype of x",
    "row bytes of x",
    "dtype of scales",
    "row bytes of scales",
    "top-k",
    "dtype of topk_idx",
    "topk_weights given",
    "num_experts",
    "layout",
    "expert_alignment",
    "num_worst_tokens given",
    "num_max_tokens_per_rank",
    "handle (number of its dispatch)"};

struct CallDigest {
  std::array<std::int64_t, kNumDigestFields> values{};

  MOELINK_HD constexpr void set(DigestField field, std::int64_t value) {
    values[static_cast<std::size_t>(field)] = value;
  }
  MOELINK_HD constexpr std::int64_t get(DigestField field) const {
    return values[static_cast<std::size_t>(field)];
  }

  // Index of the first field at or after `from` in which the two differ; kNumDigestFields if none.
  MOELINK_HD constexpr std::size_t first_difference(const CallDigest& other,
                                                    std::size_t from = 0) const {
    for (std::size_t i = from; i < kNumDigestFields; ++i) {
      if (values[i] != other.values[i]) return i;
    }
    return kNumDigestFields;
  }
};

}  // namespace moelink
