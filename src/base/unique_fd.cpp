// Closes the descriptor of a UniqueFd.
#include "base/unique_fd.hpp"

#include <unistd.h>

namespace moelink {

UniqueFd::~UniqueFd() { reset(); }

void UniqueFd::reset() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

}  // namespace moelink
