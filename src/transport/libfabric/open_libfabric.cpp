// How ranks agree on a provider and meet over it.
#include <algorithm>
#include <optional>

#include "base/check.hpp"
#include "transport/collective_open.hpp"
#include "transport/fabric.hpp"
#include "transport/libfabric/fabric_discovery.hpp"
#include "transport/libfabric/libfabric_transport.hpp"
#include "transport/nic_plan.hpp"
#include "transport/provider_choice.hpp"

namespace moelink {

namespace {

using Names = std::vector<std::string>;

std::vector<RankNetworks> decode_lists(const std::vector<std::string>& blobs) {
  std::vector<RankNetworks> ranks;
  for (const std::string& blob : blobs) {
    std::optional<RankNetworks> networks = decode_networks(blob);
    if (!networks) {
      fail(ErrorCode::kInternal, "open transport: rank {} sent a list that cannot be read",
           ranks.size());
    }
    ranks.push_back(std::move(*networks));
  }
  return ranks;
}

// By rank.
std::vector<Names> providers_of(const std::vector<RankNetworks>& ranks) {
  std::vector<Names> available;
  for (const RankNetworks& rank : ranks) {
    Names& names = available.emplace_back();
    for (const RankNetworks::Entry& entry : rank.entries) {
      if (names.empty() || names.back() != entry.provider) names.push_back(entry.provider);
    }
  }
  return available;
}

std::string near_path_of(const TransportConfig& config) {
  if (config.near_pci.empty()) return {};
  std::string path = device_path_of(config.near_pci);
  if (!path.empty()) return path;
  fail(ErrorCode::kInvalidArgument,
       "near_pci is '{}', expected the PCI address of a device of this machine, such as "
       "0000:1b:00.0",
       config.near_pci);
}

std::unique_ptr<LibfabricTransport> open_own_side(const TransportGroup& group,
                                                  const TransportConfig& config,
                                                  const FabricCandidate& chosen) {
  const NicWish wish{.near_path = near_path_of(config),
                     .max_nics = static_cast<std::size_t>(config.max_nics),
                     .turn = group.rank.index()};
  LibfabricTransport::Parts parts;
  const std::vector<std::size_t> nics = plan_nics(chosen.nics, wish);
  for (std::size_t i = 0; i < nics.size() * static_cast<std::size_t>(config.endpoints_per_nic);
       ++i) {
    const std::shared_ptr<fi_info>& info = chosen.infos[nics[i % nics.size()]];
    parts.provider = info->fabric_attr->prov_name;
    parts.nics.push_back(
        std::make_unique<FabricNic>(info, static_cast<std::size_t>(config.max_outstanding)));
  }
  // This build's headers know no FI_MR_DMABUF, so that rung is never climbed.
  parts.gpu_ladder = plan_gpu_registration({.provider = chosen.provider,
                                            .version = fabric_library().loaded_version(),
                                            .hmem = chosen.hmem});
  return std::make_unique<LibfabricTransport>(group, config, std::move(parts));
}

std::vector<WireEndpoint> decode_endpoints(const std::vector<std::string>& blobs,
                                           const std::string& provider) {
  std::vector<WireEndpoint> endpoints;
  for (std::size_t rank = 0; rank < blobs.size(); ++rank) {
    std::optional<WireEndpoint> endpoint = decode_endpoint(blobs[rank]);
    if (!endpoint || endpoint->addresses.empty()) {
      fail(ErrorCode::kInternal, "open transport: rank {} sent an address that cannot be read",
           rank);
    }
    if (endpoint->provider != provider) {
      fail(ErrorCode::kUnsupported, "open transport: rank {} uses '{}', this rank '{}'", rank,
           endpoint->provider, provider);
    }
    endpoints.push_back(std::move(*endpoint));
  }
  return endpoints;
}

}  // namespace

std::unique_ptr<Transport> open_libfabric_transport(const TransportGroup& group,
                                                    const TransportConfig& config,
                                                    const Deadline& deadline) {
  check_config(group, config);
  std::vector<FabricCandidate> candidates;
  const std::vector<RankNetworks> listed =
      decode_lists(open_together(group, "listing libfabric providers", deadline, [&] {
        check_provider_wish(config.provider, group.rank);
        candidates = discover_fabric();
        return encode_networks(networks_of(candidates));
      }));
  const std::string provider = choose_provider(providers_of(listed), config.provider);
  const auto chosen = std::ranges::find(candidates, provider, &FabricCandidate::provider);
  compare_networks(*chosen, listed);

  std::unique_ptr<LibfabricTransport> transport;
  const std::vector<std::string> blobs =
      open_together(group, "opening libfabric endpoints", deadline, [&] {
        transport = open_own_side(group, config, *chosen);
        return encode_endpoint(transport->endpoint());
      });
  open_together(group, "meeting over libfabric", deadline, [&] {
    transport->meet(decode_endpoints(blobs, transport->endpoint().provider));
    return std::string();
  });
  return transport;
}

FabricReport report_fabric() {
  FabricReport report;
  try {
    const FabricVersion version = fabric_library().loaded_version();
    report.version = fmt::format("{}.{}", version.major, version.minor);
    for (const FabricCandidate& candidate : discover_fabric()) {
      FabricProvider provider{.name = candidate.provider, .hmem = candidate.hmem};
      const NicWish all{.max_nics = candidate.nics.size()};
      for (const std::size_t nic : plan_nics(candidate.nics, all)) {
        provider.nics.push_back(candidate.nics[nic].domain);
      }
      report.providers.push_back(std::move(provider));
    }
  } catch (const Error& error) {
    report.problem = error.what();
  }
  return report;
}

}  // namespace moelink
