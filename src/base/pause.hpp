// Tells the core that the thread is spinning.
#pragma once

namespace moelink {

inline void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace moelink
