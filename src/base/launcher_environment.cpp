// Looks launchers' variables up.
#include "base/launcher_environment.hpp"

#include <cstdlib>

namespace moelink {

const char* launcher_variable(const char* name) { return std::getenv(name); }

}  // namespace moelink
