// Finds out on which host and in which process this rank runs.
#include "symm/host_identity.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

#include "base/check.hpp"

namespace moelink {
namespace {

std::string first_line_of(const char* file) {
  std::ifstream stream(file);
  std::string line;
  std::getline(stream, line);
  return line;
}

// Such as "net:[4026531833]"; empty where the system has no namespaces.
std::string target_of_link(const char* link) {
  std::error_code ignored;
  return std::filesystem::read_symlink(link, ignored).string();
}

std::string own_host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "unknown";
  return name.data();
}

std::string describe_host(const HostIdentity& identity) {
  return fmt::format("'{}' (boot {}, {})", identity.host_name, identity.boot_id,
                     identity.network_namespace);
}

void require_same_host(const HostIdentity& first, const HostIdentity& other, std::size_t rank) {
  if (!first.same_host(other)) {
    fail(ErrorCode::kUnsupported,
         "symmetric memory joins ranks of one host only: rank 0 is on {}, rank {} is on {}",
         describe_host(first), rank, describe_host(other));
  }
  if (first.user != other.user) {
    fail(ErrorCode::kUnsupported,
         "symmetric memory joins ranks of one user only: rank 0 runs as uid {}, rank {} as uid {}",
         first.user, rank, other.user);
  }
}

}  // namespace

HostIdentity HostIdentity::of_this_process(std::size_t size_bytes) {
  HostIdentity identity;
  identity.boot_id = first_line_of("/proc/sys/kernel/random/boot_id");
  identity.host_name = own_host_name();
  identity.network_namespace = target_of_link("/proc/self/ns/net");
  identity.process_namespace = target_of_link("/proc/self/ns/pid");
  identity.process = ::getpid();
  identity.user = ::geteuid();
  identity.size_bytes = size_bytes;
  return identity;
}

std::string HostIdentity::encode() const {
  return fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n{}", boot_id, host_name, network_namespace,
                     process_namespace, process, user, size_bytes);
}

HostIdentity HostIdentity::decode(const std::string& text) {
  std::istringstream stream(text);
  HostIdentity identity;
  std::getline(stream, identity.boot_id);
  std::getline(stream, identity.host_name);
  std::getline(stream, identity.network_namespace);
  std::getline(stream, identity.process_namespace);
  if (!(stream >> identity.process >> identity.user >> identity.size_bytes)) {
    fail(ErrorCode::kInternal, "symmetric memory: cannot parse the host identity '{}'", text);
  }
  return identity;
}

bool HostIdentity::same_host(const HostIdentity& other) const {
  return boot_id == other.boot_id && host_name == other.host_name &&
         network_namespace == other.network_namespace;
}

bool HostIdentity::same_process(const HostIdentity& other) const {
  return same_host(other) && process_namespace == other.process_namespace &&
         process == other.process;
}

Topology topology_of(const std::vector<HostIdentity>& identities) {
  const auto num_ranks = identities.size();
  std::size_t per_host = 1;
  while (per_host < num_ranks && identities[per_host].same_host(identities[0])) ++per_host;
  for (std::size_t rank = 0; rank < num_ranks; ++rank) {
    // The first rank of its host must be the first of its block.
    const auto same_host = [&](const HostIdentity& other) {
      return identities[rank].same_host(other);
    };
    const auto first = std::ranges::find_if(identities, same_host) - identities.begin();
    const bool in_place = static_cast<std::size_t>(first) == rank / per_host * per_host;
    if (num_ranks % per_host == 0 && in_place) continue;
    fail(ErrorCode::kUnsupported,
         "group: rank {} is on {}; expected {} consecutive ranks on each host, as on that of rank "
         "0: number ranks host by host, or give num_nodes (MOELINK_NODES)",
         rank, describe_host(identities[rank]), per_host);
  }
  return {.num_ranks = static_cast<int>(num_ranks),
          .num_nodes = static_cast<int>(num_ranks / per_host)};
}

HostPlacement placement_of(const std::vector<HostIdentity>& identities) {
  const HostIdentity& first = identities.front();
  HostPlacement placement = HostPlacement::kOneProcess;
  for (std::size_t rank = 0; rank < identities.size(); ++rank) {
    const HostIdentity& other = identities[rank];
    require_same_host(first, other, rank);
    if (other.size_bytes == 0 || other.size_bytes != first.size_bytes) {
      fail(ErrorCode::kInvalidArgument,
           "symmetric memory size: rank 0 asks for {} bytes, rank {} for {}; expected the same "
           "number > 0 at all ranks",
           first.size_bytes, rank, other.size_bytes);
    }
    if (!first.same_process(other)) placement = HostPlacement::kOneHost;
  }
  return placement;
}

}  // namespace moelink
