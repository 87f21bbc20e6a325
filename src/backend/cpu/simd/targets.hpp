// Which SIMD targets the movers may use: MOELINK_SIMD at first, then what a test asks for.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace moelink::simd {

// Compiled in and supported by this CPU, best first: {"AVX3_DL", "AVX3", "AVX2", ...}.
std::vector<std::string> supported_targets();

// Later calls of movers use the supported target named `highest` (in any case), otherwise the best
// one whose name begins so, which for "" is the best of all. "scalar" and "emu128" mean the
// plainest target there is. Throws Error(kInvalidArgument) for a name that no supported target has.
void limit_targets(std::string_view highest);

// Applies MOELINK_SIMD once; every mover calls this first.
void apply_environment_limit();

}  // namespace moelink::simd
