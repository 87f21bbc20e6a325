// Steps of opening a transport, after which all ranks agree whether they worked.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "transport/transport_config.hpp"

namespace moelink {

// Collective. What `step` returned at each rank. If it threw anywhere, all ranks throw the error of
// the lowest such rank, which is named.
std::vector<std::string> open_together(const TransportGroup& group, const char* what,
                                       const Deadline& deadline,
                                       const std::function<std::string()>& step);

}  // namespace moelink
