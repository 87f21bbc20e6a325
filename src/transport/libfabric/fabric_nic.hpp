// One endpoint of a network card, which reaches one endpoint of every peer.
#pragma once

#include <rdma/fabric.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "moelink/types.hpp"
#include "transport/libfabric/fabric_owners.hpp"

namespace moelink {

// What libfabric hands back with a completion. Its first member belongs to the provider.
struct FabricContext {
  fi_context2 context{};
  Rank peer;
  std::uint64_t put_number = 0;  // 0: a posted receive, which a put with an immediate consumes
};

struct FabricWrite {
  const std::byte* source = nullptr;
  void* source_descriptor = nullptr;
  std::size_t bytes = 0;
  Rank peer;
  std::uint64_t target = 0;  // on the wire
  std::uint64_t target_key = 0;
  bool has_immediate = false;
  std::uint32_t immediate = 0;
};

// Results of functions are libfabric's: 0 or a count, or a negative error number.
class FabricNic {
 public:
  // Throws Error(kSystem) naming the step that failed and the card.
  FabricNic(std::shared_ptr<fi_info> info, std::size_t num_contexts);

  std::string name() const { return info_->domain_attr->name; }
  std::string address() const;
  // `addresses` by rank.
  void insert_peers(const std::vector<std::string>& addresses);

  FidOwner<fid_mr> register_memory(std::span<std::byte> memory, std::uint64_t wanted_key);
  // What offset 0 of a region is called in a write to it.
  std::uint64_t wire_address(std::span<std::byte> memory) const;

  ssize_t write(const FabricWrite& write, FabricContext& context);
  ssize_t read_completions(std::span<fi_cq_data_entry> entries);
  // The error that made read_completions return -FI_EAVAIL, with the provider's words for it.
  fi_cq_err_entry read_error(std::string& text);
  // Puts a receive back that the arrival of a put has consumed, if this card's arrivals do.
  void restore_receive(void* context);

 private:
  void open_queue(std::size_t num_contexts);
  void open_endpoint();
  void post_receives();
  void post_waiting_receives();

  std::shared_ptr<fi_info> info_;
  // Closed in the opposite order.
  FidOwner<fid_fabric> fabric_;
  FidOwner<fid_domain> domain_;
  FidOwner<fid_av> addresses_;
  FidOwner<fid_cq> queue_;
  FidOwner<fid_ep> endpoint_;
  std::vector<fi_addr_t> peers_;
  std::unique_ptr<FabricContext[]> receives_;     // null if arrivals consume none
  std::vector<FabricContext*> waiting_receives_;  // to be posted
};

}  // namespace moelink
