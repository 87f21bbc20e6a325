// Which Highway targets are compiled; included before any Highway header.
#pragma once

// The movers keep vectors in structs and arrays, which scalable vectors do not allow. NEON serves
// the machines that have SVE.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
