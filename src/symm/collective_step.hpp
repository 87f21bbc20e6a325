// A step that all ranks take, and that fails at all ranks if it fails at one.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/deadline.hpp"
#include "bootstrap/bootstrap.hpp"

namespace moelink {

// Runs `step` and exchanges what it returned; the result is in rank order. If it throws anywhere,
// also outside the part of a group that `bootstrap` is, all ranks of the whole throw an Error with
// the code and the text of the lowest rank that failed for a reason of its own (not because it
// missed another rank), naming that rank. If the exchange itself fails, a rank whose own step
// failed throws its own error.
std::vector<std::string> collective_step(Bootstrap& bootstrap, const char* what,
                                         const Deadline& deadline,
                                         const std::function<std::string()>& step);

}  // namespace moelink
