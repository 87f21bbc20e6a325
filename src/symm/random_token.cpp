// Makes and prints random tokens.
#include "symm/random_token.hpp"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>

#include "base/check.hpp"

namespace moelink {

RandomToken RandomToken::make() {
  RandomToken token;
  // Requests of up to 256 bytes are never cut short.
  if (::getrandom(token.bytes.data(), kBytes, 0) != static_cast<ssize_t>(kBytes)) {
    fail_errno(errno, "cannot get {} random bytes", kBytes);
  }
  return token;
}

RandomToken RandomToken::decode(std::string_view bytes) {
  if (bytes.size() != kBytes) {
    fail(ErrorCode::kInternal, "a token has {} bytes, expected {}", bytes.size(), kBytes);
  }
  RandomToken token;
  std::copy(bytes.begin(), bytes.end(), token.bytes.begin());
  return token;
}

std::string RandomToken::hex() const {
  std::string text;
  for (const char byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

}  // namespace moelink
