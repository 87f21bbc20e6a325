// The entry to libfabric, in builds with and without it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "transport/transport.hpp"

namespace moelink {

// Collective. Throws Error(kUnsupported) if this build or this machine has no libfabric, or if the
// ranks have no provider in common; Error(kInvalidArgument) for a provider that may not be used.
// All ranks throw alike.
std::unique_ptr<Transport> open_libfabric_transport(const TransportGroup& group,
                                                    const TransportConfig& config,
                                                    const Deadline& deadline);

struct FabricProvider {
  std::string name;  // base name
  std::vector<std::string> nics;
  bool hmem = false;  // claims to take memory of GPUs
};

struct FabricReport {
  std::string problem;                    // why there is nothing; empty if libfabric works
  std::string version;                    // "1.17"
  std::vector<FabricProvider> providers;  // that Moelink can use, the best first
};

// What this process can reach networks with. Takes a moment: libfabric looks for all hardware.
FabricReport report_fabric();

}  // namespace moelink
