// The transports by name.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "transport/transport.hpp"

namespace moelink {

std::vector<std::string> transport_kinds();

// Collective. `kind` is one of transport_kinds(); throws Error(kInvalidArgument) otherwise.
std::unique_ptr<Transport> open_transport(const std::string& kind, const TransportGroup& group,
                                          const TransportConfig& config, const Deadline& deadline);

}  // namespace moelink
