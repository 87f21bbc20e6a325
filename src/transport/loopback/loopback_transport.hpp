// A transport between threads of one process.
#pragma once

#include <memory>

#include "transport/transport.hpp"

namespace moelink {

// Collective. Throws Error(kUnsupported) naming the rank that lives in another process.
std::unique_ptr<Transport> open_loopback_transport(const TransportGroup& group,
                                                   const TransportConfig& config,
                                                   const Deadline& deadline);

}  // namespace moelink
