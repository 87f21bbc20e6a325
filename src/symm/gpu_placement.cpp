// Chooses the fastest kind that all ranks can take part in.
#include "symm/gpu_placement.hpp"

#include <algorithm>
#include <optional>
#include <sstream>
#include <utility>

#include "base/check.hpp"

namespace moelink {
namespace {

constexpr const char* kVariable = "MOELINK_CUDA_MEMORY";

using Identities = std::vector<GpuIdentity>;
using RankPair = std::pair<std::size_t, std::size_t>;

void require_same_wish(const Identities& identities) {
  for (std::size_t rank = 1; rank < identities.size(); ++rank) {
    if (identities[rank].wish == identities.front().wish) continue;
    fail(ErrorCode::kInvalidArgument,
         "{} is '{}' at rank 0 but '{}' at rank {}; expected the same at all ranks", kVariable,
         identities.front().wish, identities[rank].wish, rank);
  }
}

template <class Relation>
std::optional<RankPair> first_pair(const Identities& identities, const Relation& holds) {
  for (std::size_t a = 0; a < identities.size(); ++a) {
    for (std::size_t b = a + 1; b < identities.size(); ++b) {
      if (holds(identities[a], identities[b])) return RankPair{a, b};
    }
  }
  return std::nullopt;
}

bool names(const std::vector<std::string>& buses, const std::string& bus_id) {
  return std::find(buses.begin(), buses.end(), bus_id) != buses.end();
}

std::optional<RankPair> unreachable_pair(const Identities& identities) {
  return first_pair(identities, [](const GpuIdentity& a, const GpuIdentity& b) {
    return names(a.unreachable, b.bus_id) || names(b.unreachable, a.bus_id);
  });
}

std::optional<RankPair> pair_in_one_process(const Identities& identities) {
  return first_pair(identities, [](const GpuIdentity& a, const GpuIdentity& b) {
    return a.host.same_process(b.host);
  });
}

std::optional<std::size_t> first_without(const Identities& identities, bool GpuIdentity::* can) {
  for (std::size_t rank = 0; rank < identities.size(); ++rank) {
    if (!(identities[rank].*can)) return rank;
  }
  return std::nullopt;
}

[[noreturn]] void refuse_pair(const Identities& identities, const RankPair& pair,
                              const char* reason) {
  const GpuIdentity& first = identities[pair.first];
  const GpuIdentity& second = identities[pair.second];
  fail(ErrorCode::kUnsupported,
       "{}={}: rank {} (device {}, {}) and rank {} (device {}, {}) {}; set it to auto or pinned",
       kVariable, first.wish, pair.first, first.device, first.bus_id, pair.second, second.device,
       second.bus_id, reason);
}

GpuMemoryKind kind_for_threads(const Identities& identities) {
  if (first_without(identities, &GpuIdentity::maps_addresses)) return GpuMemoryKind::kPinned;
  return GpuMemoryKind::kInproc;
}

// Asked for by name alone: that a GPU has such handles does not tell whether its host can use them.
GpuMemoryKind fabric_kind(const Identities& identities) {
  const auto without = first_without(identities, &GpuIdentity::exports_fabric);
  if (!without) return GpuMemoryKind::kFabric;
  fail(
      ErrorCode::kUnsupported,
      "{}=fabric: device {} ({}) of rank {} cannot pass its memory on as fabric handles; set it to "
      "auto, vmm, ipc or pinned",
      kVariable, identities[*without].device, identities[*without].bus_id, *without);
}

GpuMemoryKind kind_for_processes(const Identities& identities) {
  const std::string& wish = identities.front().wish;
  if (wish == "fabric") return fabric_kind(identities);
  const auto without_export = first_without(identities, &GpuIdentity::exports_descriptors);
  const auto in_one_process = pair_in_one_process(identities);
  if (wish == "vmm" && without_export) {
    fail(ErrorCode::kUnsupported,
         "{}=vmm: device {} ({}) of rank {} cannot pass its memory on as file descriptors; set it "
         "to auto, ipc or pinned",
         kVariable, identities[*without_export].device, identities[*without_export].bus_id,
         *without_export);
  }
  if (wish == "ipc" && in_one_process) {
    refuse_pair(identities, *in_one_process, "share a process, which CUDA IPC cannot join");
  }
  if (wish != "ipc" && !without_export) return GpuMemoryKind::kVmm;
  return in_one_process ? GpuMemoryKind::kPinned : GpuMemoryKind::kIpc;
}

}  // namespace

// One line with the rank's own fields, one with the buses, then the host's lines.
std::string GpuIdentity::encode() const {
  std::string buses;
  for (const std::string& bus : unreachable) buses += bus + ' ';
  return fmt::format("{} {} {} {} {} {} {}\n{}\n{}", device, bus_id,
                     static_cast<int>(maps_addresses), static_cast<int>(exports_descriptors),
                     static_cast<int>(exports_fabric), granularity, wish, buses, host.encode());
}

GpuIdentity GpuIdentity::decode(const std::string& text) {
  std::istringstream stream(text);
  GpuIdentity identity;
  std::string line;
  std::getline(stream, line);
  std::istringstream own(line);
  if (!(own >> identity.device >> identity.bus_id >> identity.maps_addresses >>
        identity.exports_descriptors >> identity.exports_fabric >> identity.granularity >>
        identity.wish)) {
    fail(ErrorCode::kInternal, "symmetric memory: cannot parse the GPU identity '{}'", text);
  }
  std::getline(stream, line);
  std::istringstream buses(line);
  for (std::string bus; buses >> bus;) identity.unreachable.push_back(bus);
  identity.host =
      HostIdentity::decode(text.substr(std::min(text.size(), std::size_t(stream.tellg()))));
  return identity;
}

GpuMemoryKind gpu_memory_kind_of(const std::vector<GpuIdentity>& identities) {
  std::vector<HostIdentity> hosts;
  for (const GpuIdentity& identity : identities) hosts.push_back(identity.host);
  const HostPlacement placement = placement_of(hosts);
  require_same_wish(identities);
  const std::string& wish = identities.front().wish;
  if (wish == "pinned") return GpuMemoryKind::kPinned;
  if (const auto pair = unreachable_pair(identities)) {
    if (wish == "auto") return GpuMemoryKind::kPinned;
    refuse_pair(identities, *pair, "have no access to each other's memory");
  }
  switch (placement) {
    case HostPlacement::kOneProcess:
      return kind_for_threads(identities);
    case HostPlacement::kOneHost:
      break;
  }
  return kind_for_processes(identities);
}

}  // namespace moelink
