// Version of the library; the protocol version is separate because peers must agree on it.
#pragma once

namespace moelink {

inline constexpr const char* kVersion = "0.1.0";
inline constexpr int kProtocolVersion = 1;

}  // namespace moelink
