// Limits Highway's choice of SIMD target.
#include "backend/cpu/simd/targets.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cstdint>

#include "backend/cpu/simd/highway_setup.hpp"
#include "base/check.hpp"
#include "base/environment.hpp"

#include "hwy/highway.h"

namespace moelink::simd {
namespace {

// Better targets have lower bits. Read before the first limit, which would hide some.
std::vector<std::int64_t> find_targets() {
  std::vector<std::int64_t> targets;
  const std::int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
  for (std::int64_t rest = usable; rest != 0; rest &= rest - 1) targets.push_back(rest & -rest);
  return targets;
}

const std::vector<std::int64_t>& all_targets() {
  static const std::vector<std::int64_t> targets = find_targets();
  return targets;
}

bool begins_with(std::string_view name, std::string_view prefix) {
  const auto same = [](char a, char b) {
    return std::tolower(static_cast<unsigned char>(a)) ==
           std::tolower(static_cast<unsigned char>(b));
  };
  return prefix.size() <= name.size() &&
         std::equal(prefix.begin(), prefix.end(), name.begin(), same);
}

// A whole name goes before a prefix: "avx3" is not "avx3_zen4".
std::int64_t target_named(std::string_view text) {
  for (const std::int64_t target : all_targets()) {
    const std::string_view name = hwy::TargetName(target);
    if (name.size() == text.size() && begins_with(name, text)) return target;
  }
  for (const std::int64_t target : all_targets()) {
    if (begins_with(hwy::TargetName(target), text)) return target;
  }
  if (begins_with("scalar", text) || begins_with("emu128", text)) return all_targets().back();
  fail(ErrorCode::kInvalidArgument, "SIMD target '{}' (MOELINK_SIMD): expected one of {}", text,
       fmt::join(supported_targets(), ", "));
}

void set_limit(std::string_view highest) {
  const std::int64_t best = target_named(highest);
  hwy::DisableTargets(best - 1);  // every bit below, which means every better target
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

bool limit_from_environment() {
  set_limit(environment().simd);
  return true;
}

}  // namespace

std::vector<std::string> supported_targets() {
  std::vector<std::string> names;
  for (const std::int64_t target : all_targets()) names.emplace_back(hwy::TargetName(target));
  return names;
}

void limit_targets(std::string_view highest) {
  apply_environment_limit();  // now, or the next mover would put it in place of this limit
  set_limit(highest);
}

void apply_environment_limit() {
  static const bool applied = limit_from_environment();
  static_cast<void>(applied);
}

}  // namespace moelink::simd
