// Compares what the ranks say of one collective call.
#include "backend/call_agreement.hpp"

#include <algorithm>
#include <string>

#include "base/check.hpp"

namespace moelink {
namespace {

std::string value_text(DigestField field, std::int64_t value) {
  if (field == DigestField::kOperation) {
    const auto operation = static_cast<Operation>(value);
    return operation == Operation::kOpen ? "a low latency call" : operation_name(operation);
  }
  const bool is_dtype = field == DigestField::kDType || field == DigestField::kScaleDType ||
                        field == DigestField::kTopkDType;
  if (is_dtype) return value < 0 ? "none" : dtype_name(static_cast<DType>(value));
  if (field == DigestField::kLayout) {
    return static_cast<Layout>(value) == Layout::kCompact ? "compact" : "expert_major";
  }
  return std::to_string(value);
}

}  // namespace

void check_same_call(std::span<const ExchangeBlock> blocks, const std::vector<bool>& present,
                     Operation operation, Rank self) {
  Violations violations(fmt::format("{} (rank {}): the ranks' calls differ",
                                    operation_name(operation), self.value()));
  const auto yardstick =
      static_cast<std::size_t>(std::ranges::find(present, true) - present.begin());
  const CallDigest& reference = blocks[yardstick].digest;
  for (std::size_t rank = yardstick + 1; rank < blocks.size(); ++rank) {
    if (!present[rank]) continue;
    const CallDigest& other = blocks[rank].digest;
    for (std::size_t i = reference.first_difference(other); i < kNumDigestFields;
         i = reference.first_difference(other, i + 1)) {
      const auto field = static_cast<DigestField>(i);
      violations.require(false, "{} is {} on rank {} but {} on rank {}", kDigestFieldNames[i],
                         value_text(field, other.values[i]), rank,
                         value_text(field, reference.values[i]), yardstick);
      if (field == DigestField::kOperation) break;  // arguments of other calls cannot be compared
    }
  }
  violations.throw_if_any();
}

void check_selections(std::span<const ExchangeBlock> blocks, int num_topk, int num_experts) {
  for (std::size_t rank = 0; rank < blocks.size(); ++rank) {
    const std::int64_t index = blocks[rank].bad_selection - 1;
    if (index < 0) continue;
    fail_bad_selection(index / num_topk, static_cast<int>(index % num_topk), blocks[rank].bad_id,
                       Rank(static_cast<std::int32_t>(rank)), num_experts);
  }
}

void fail_bad_selection(std::int64_t token, int k, std::int64_t id, Rank rank, int num_experts) {
  fail(ErrorCode::kInvalidArgument,
       "topk_idx[{}, {}] is {} on rank {}: expected -1 or 0 .. num_experts-1, num_experts is {}",
       token, k, id, rank.value(), num_experts);
}

}  // namespace moelink
