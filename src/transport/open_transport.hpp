// The transports by name.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "transport/transport.hpp"

namespace moelink {

std::vector<std::string> transport_kinds();

// Collective. `kind` is one of transport_kinds(); throws Error(kInvalidArgument) otherwise.
std::unique_ptr<Transport> open_transport(const std::string& kind, const TransportGroup& group,
                                          const TransportConfig& config, const Deadline& deadline);

// For tests: from now on all transports of this process pass through it as they are opened. An
// empty one ends that.
using TransportDecorator = std::function<std::unique_ptr<Transport>(std::unique_ptr<Transport>)>;
void set_transport_decorator(TransportDecorator decorator);

}  // namespace moelink
