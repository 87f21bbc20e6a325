// Chooses a provider from what all ranks have.
#include "transport/provider_choice.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <span>

#include "base/check.hpp"

namespace moelink {

namespace {

constexpr std::string_view kOneHostProvider = "shm";

using Available = std::vector<std::vector<std::string>>;

std::optional<std::size_t> first_rank_without(const Available& available, std::string_view name) {
  for (std::size_t rank = 0; rank < available.size(); ++rank) {
    const std::vector<std::string>& own = available[rank];
    if (std::find(own.begin(), own.end(), name) == own.end()) return rank;
  }
  return std::nullopt;
}

std::string text_of(const std::vector<std::string>& names) {
  return names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

std::string base_provider(std::string_view name) {
  return std::string(name.substr(0, name.find(';')));
}

void check_provider_wish(const std::string& wish, Rank rank) {
  if (wish.empty() || std::ranges::find(kProviders, wish) != std::end(kProviders)) return;
  if (wish == "sockets") {
    fail(ErrorCode::kInvalidArgument,
         "open transport (rank {}): provider is 'sockets', which is obsolete and known to hang; "
         "use 'tcp'",
         rank.value());
  }
  fail(ErrorCode::kInvalidArgument,
       "open transport (rank {}): provider is '{}', expected one of {}, or nothing for the best",
       rank.value(), wish, fmt::join(kProviders, ", "));
}

std::string choose_provider(const Available& available, const std::string& wish) {
  if (!wish.empty()) {
    const auto without = first_rank_without(available, wish);
    if (!without) return wish;
    fail(ErrorCode::kUnsupported,
         "open transport: rank {} has no provider '{}' with puts and immediates, it has: {}",
         *without, wish, text_of(available[*without]));
  }
  for (const std::string_view name : kProviders) {
    if (name != kOneHostProvider && !first_rank_without(available, name)) return std::string(name);
  }
  const std::size_t rank = first_rank_without(available, "tcp").value_or(0);
  fail(
      ErrorCode::kUnsupported,
      "open transport: the ranks have no provider in common that reaches other hosts; rank {} has: "
      "{}",
      rank, text_of(available[rank]));
}

}  // namespace moelink
