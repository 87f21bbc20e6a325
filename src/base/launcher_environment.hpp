// The variables that launchers set for each rank, read from the process's environment.
#pragma once

namespace moelink {

// nullptr when the variable is not set. Which variables matter: bootstrap/launcher.hpp.
const char* launcher_variable(const char* name);

}  // namespace moelink
