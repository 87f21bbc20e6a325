// Asks libfabric, first for providers that take memory of GPUs, then for all.
#include "transport/libfabric/fabric_discovery.hpp"

#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>

#include "base/check.hpp"
#include "transport/provider_choice.hpp"

namespace moelink {

namespace {

constexpr std::uint32_t kApiVersion = FI_VERSION(1, 17);
constexpr std::size_t kMinImmediateBytes = 4;
constexpr std::size_t kMaxKeyBytes = 8;  // larger keys would have to be exchanged as blobs
// What we can live with, each honoured where regions are registered.
constexpr int kMemoryModes =
    FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_ENDPOINT;

std::string text_of(const char* text) { return text == nullptr ? std::string() : text; }

InfoOwner make_hints(const FabricLibrary& library, bool hmem) {
  InfoOwner hints(library.dupinfo(nullptr));
  MOELINK_INVARIANT(hints != nullptr);
  hints->caps = FI_MSG | FI_RMA | (hmem ? FI_HMEM : 0);
  hints->mode = FI_CONTEXT | FI_CONTEXT2 | FI_RX_CQ_DATA;
  hints->ep_attr->type = FI_EP_RDM;
  hints->domain_attr->mr_mode = kMemoryModes | (hmem ? FI_MR_HMEM : 0);
  hints->domain_attr->threading = FI_THREAD_DOMAIN;
  hints->domain_attr->control_progress = FI_PROGRESS_MANUAL;
  hints->domain_attr->data_progress = FI_PROGRESS_MANUAL;
  hints->domain_attr->resource_mgmt = FI_RM_ENABLED;
  hints->domain_attr->av_type = FI_AV_TABLE;
  return hints;
}

InfoOwner ask(const FabricLibrary& library, bool hmem) {
  const InfoOwner hints = make_hints(library, hmem);
  fi_info* found = nullptr;
  const int result = library.getinfo(kApiVersion, nullptr, nullptr, 0, hints.get(), &found);
  if (result == 0) return InfoOwner(found);
  if (result == -FI_ENODATA || result == -FI_ENOSYS) return nullptr;
  fail(ErrorCode::kSystem, "libfabric cannot list providers: {}", library.describe(result));
}

bool is_usable(const fi_info& info) {
  return info.domain_attr->cq_data_size >= kMinImmediateBytes &&
         info.domain_attr->mr_key_size <= kMaxKeyBytes;
}

std::string address_of(const fi_info& info) {
  const auto* const bytes = static_cast<const std::uint8_t*>(info.src_addr);
  std::string text;
  for (std::size_t i = 0; bytes != nullptr && i < info.src_addrlen; ++i) {
    text += fmt::format("{:02x}", bytes[i]);
  }
  return text;
}

NicPlace place_of(const fi_info& info) {
  NicPlace place{.domain = text_of(info.domain_attr->name),
                 .fabric = text_of(info.fabric_attr->name),
                 .address = address_of(info)};
  const bool has_bus = info.nic != nullptr && info.nic->bus_attr != nullptr &&
                       info.nic->bus_attr->bus_type == FI_BUS_PCI;
  if (!has_bus) return place;
  const fi_pci_attr& pci = info.nic->bus_attr->attr.pci;
  place.device_path = device_path_of(fmt::format("{:04x}:{:02x}:{:02x}.{:x}", pci.domain_id,
                                                 pci.bus_id, pci.device_id, pci.function_id));
  return place;
}

FabricCandidate candidate_of(const FabricLibrary& library, std::string_view provider,
                             const fi_info* with_hmem, const fi_info* without) {
  FabricCandidate candidate{.provider = std::string(provider)};
  std::string full_name;  // the layers that the first entry has; entries with others are left out
  for (const fi_info* list : {with_hmem, without}) {
    for (const fi_info* info = list; info != nullptr; info = info->next) {
      const std::string name = text_of(info->fabric_attr->prov_name);
      if (base_provider(name) != provider || !is_usable(*info)) continue;
      if (full_name.empty()) full_name = name;
      if (name != full_name) continue;
      candidate.nics.push_back(place_of(*info));
      candidate.infos.emplace_back(library.dupinfo(info), InfoDeleter());
    }
    if (!candidate.infos.empty()) {
      candidate.hmem = list == with_hmem;
      break;
    }
  }
  return candidate;
}

// Not empty, and without what separates words.
std::string as_word(std::string text) {
  std::ranges::replace_if(
      text, [](unsigned char character) { return std::isspace(character) != 0; }, '_');
  return text.empty() ? "-" : text;
}

// Cards belong to a network namespace: two of them on one machine are two hosts.
std::string own_host() {
  std::ifstream stream("/proc/sys/kernel/random/boot_id");
  std::string boot;
  std::getline(stream, boot);
  std::error_code ignored;
  return boot + std::filesystem::read_symlink("/proc/self/ns/net", ignored).string();
}

}  // namespace

RankNetworks networks_of(const std::vector<FabricCandidate>& candidates) {
  RankNetworks networks{.host = as_word(own_host())};
  for (const FabricCandidate& candidate : candidates) {
    for (const NicPlace& nic : candidate.nics) {
      networks.entries.push_back({candidate.provider, as_word(nic.fabric), as_word(nic.address)});
    }
  }
  return networks;
}

void compare_networks(FabricCandidate& candidate, const std::vector<RankNetworks>& ranks) {
  for (NicPlace& nic : candidate.nics) {
    nic.reach = reach_of_network(ranks, candidate.provider, as_word(nic.fabric));
  }
}

std::string device_path_of(const std::string& pci_address) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path path = fs::canonical("/sys/bus/pci/devices/" + pci_address, error);
  return error ? std::string() : fs::relative(path, "/sys/devices", error).string();
}

std::vector<FabricCandidate> discover_fabric() {
  const FabricLibrary& library = fabric_library();
  const InfoOwner with_hmem = ask(library, true);
  const InfoOwner without = ask(library, false);
  std::vector<FabricCandidate> candidates;
  for (const std::string_view name : kProviders) {
    FabricCandidate candidate = candidate_of(library, name, with_hmem.get(), without.get());
    if (!candidate.infos.empty()) candidates.push_back(std::move(candidate));
  }
  return candidates;
}

}  // namespace moelink
