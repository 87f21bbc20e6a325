// What tells ranks of one host, and of one process, from others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "bootstrap/bootstrap.hpp"
#include "moelink/topology.hpp"

namespace moelink {

struct HostIdentity {
  std::string boot_id;
  std::string host_name;
  std::string network_namespace;  // abstract Unix sockets do not cross it
  std::string process_namespace;  // process ids mean something only inside it
  std::int64_t process = 0;
  std::uint64_t user = 0;
  std::size_t size_bytes = 0;  // of the region that the rank asks for

  static HostIdentity of_this_process(std::size_t size_bytes);
  std::string encode() const;
  static HostIdentity decode(const std::string& text);

  bool same_host(const HostIdentity& other) const;
  bool same_process(const HostIdentity& other) const;
};

// A node for each host. Throws Error(kUnsupported), alike at all ranks, unless the ranks are
// numbered host by host, the same number on each.
Topology topology_of(const std::vector<HostIdentity>& identities);

// Whether ranks can share memory, and how. All ranks come to the same conclusion.
enum class HostPlacement : std::uint8_t { kOneProcess, kOneHost };

// Throws Error(kUnsupported) naming two ranks on different hosts or of different users,
// Error(kInvalidArgument) if ranks ask for different sizes or for nothing.
HostPlacement placement_of(const std::vector<HostIdentity>& identities);

}  // namespace moelink
