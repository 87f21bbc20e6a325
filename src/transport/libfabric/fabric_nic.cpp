// Opens an endpoint and speaks to it.
#include "transport/libfabric/fabric_nic.hpp"

#include <rdma/fi_cm.h>
#include <rdma/fi_rma.h>

#include <algorithm>
#include <array>

#include "base/check.hpp"

namespace moelink {

namespace {

constexpr std::size_t kMaxPostedReceives = 512;
constexpr std::size_t kAddressBufferBytes = 512;
constexpr std::uint64_t kAccess = FI_WRITE | FI_REMOTE_WRITE;

template <class Object, class Open>
FidOwner<Object> open_or_throw(const fi_info& info, const char* what, const Open& open) {
  Object* object = nullptr;
  const int result = open(&object);
  if (result == 0) return FidOwner<Object>(object);
  fail(ErrorCode::kSystem, "libfabric ({}, {}): cannot open {}: {}", info.fabric_attr->prov_name,
       info.domain_attr->name, what, fabric_library().describe(result));
}

void require_success(const fi_info& info, const char* what, long result) {
  if (result >= 0) return;
  fail(ErrorCode::kSystem, "libfabric ({}, {}): {}: {}", info.fabric_attr->prov_name,
       info.domain_attr->name, what, fabric_library().describe(result));
}

bool has_memory_mode(const fi_info& info, int mode) {
  return (info.domain_attr->mr_mode & mode) != 0;
}

}  // namespace

FabricNic::FabricNic(std::shared_ptr<fi_info> info, std::size_t num_contexts)
    : info_(std::move(info)) {
  fi_info& chosen = *info_;
  fabric_ = open_or_throw<fid_fabric>(chosen, "the fabric", [&](fid_fabric** out) {
    return fabric_library().fabric(chosen.fabric_attr, out, nullptr);
  });
  domain_ = open_or_throw<fid_domain>(chosen, "the card", [&](fid_domain** out) {
    return ::fi_domain(fabric_.get(), &chosen, out, nullptr);
  });
  open_queue(num_contexts);
  open_endpoint();
  post_receives();
}

void FabricNic::open_queue(std::size_t num_contexts) {
  fi_cq_attr queue{};
  queue.size = 2 * num_contexts + kMaxPostedReceives;
  queue.format = FI_CQ_FORMAT_DATA;
  queue.wait_obj = FI_WAIT_NONE;
  queue_ = open_or_throw<fid_cq>(*info_, "a completion queue", [&](fid_cq** out) {
    return ::fi_cq_open(domain_.get(), &queue, out, nullptr);
  });
  fi_av_attr book{};
  book.type = FI_AV_TABLE;
  addresses_ = open_or_throw<fid_av>(*info_, "an address table", [&](fid_av** out) {
    return ::fi_av_open(domain_.get(), &book, out, nullptr);
  });
}

void FabricNic::open_endpoint() {
  endpoint_ = open_or_throw<fid_ep>(*info_, "an endpoint", [&](fid_ep** out) {
    return ::fi_endpoint(domain_.get(), info_.get(), out, nullptr);
  });
  require_success(*info_, "cannot bind the address table",
                  ::fi_ep_bind(endpoint_.get(), &addresses_->fid, 0));
  require_success(*info_, "cannot bind the completion queue",
                  ::fi_ep_bind(endpoint_.get(), &queue_->fid, FI_TRANSMIT | FI_RECV));
  require_success(*info_, "cannot enable the endpoint", ::fi_enable(endpoint_.get()));
}

// Where the provider wants it, every put with an immediate consumes a posted receive.
void FabricNic::post_receives() {
  if ((info_->mode & FI_RX_CQ_DATA) == 0) return;
  const std::size_t count = std::min(kMaxPostedReceives, info_->rx_attr->size);
  receives_ = std::make_unique<FabricContext[]>(count);
  for (std::size_t i = 0; i < count; ++i) waiting_receives_.push_back(&receives_[i]);
  post_waiting_receives();
}

void FabricNic::post_waiting_receives() {
  while (!waiting_receives_.empty()) {
    const ssize_t result = ::fi_recv(endpoint_.get(), nullptr, 0, nullptr, FI_ADDR_UNSPEC,
                                     &waiting_receives_.back()->context);
    if (result == -FI_EAGAIN) return;  // after the queue has been read, perhaps
    require_success(*info_, "cannot post a receive", result);
    waiting_receives_.pop_back();
  }
}

void FabricNic::restore_receive(void* context) {
  if (receives_ == nullptr || context == nullptr) return;
  waiting_receives_.push_back(static_cast<FabricContext*>(context));
  post_waiting_receives();
}

std::string FabricNic::address() const {
  std::array<char, kAddressBufferBytes> buffer{};
  std::size_t size = buffer.size();
  require_success(*info_, "cannot tell its address",
                  ::fi_getname(&endpoint_->fid, buffer.data(), &size));
  return std::string(buffer.data(), size);
}

void FabricNic::insert_peers(const std::vector<std::string>& addresses) {
  for (const std::string& address : addresses) {
    fi_addr_t peer = FI_ADDR_UNSPEC;
    const int result = ::fi_av_insert(addresses_.get(), address.data(), 1, &peer, 0, nullptr);
    if (result != 1) {
      fail(ErrorCode::kSystem, "libfabric ({}, {}): cannot insert the address of rank {}: {}",
           info_->fabric_attr->prov_name, info_->domain_attr->name, peers_.size(),
           result < 0 ? fabric_library().describe(result) : "it was refused");
    }
    peers_.push_back(peer);
  }
}

FidOwner<fid_mr> FabricNic::register_memory(std::span<std::byte> memory, std::uint64_t wanted_key) {
  const std::uint64_t key = has_memory_mode(*info_, FI_MR_PROV_KEY) ? 0 : wanted_key;
  fid_mr* region = nullptr;
  const int result = ::fi_mr_reg(domain_.get(), memory.data(), memory.size(), kAccess, 0, key, 0,
                                 &region, nullptr);
  if (result != 0) {
    fail(ErrorCode::kSystem, "libfabric ({}, {}): cannot register {} bytes: {}",
         info_->fabric_attr->prov_name, info_->domain_attr->name, memory.size(),
         fabric_library().describe(result));
  }
  FidOwner<fid_mr> owner(region);
  if (has_memory_mode(*info_, FI_MR_ENDPOINT)) {
    require_success(*info_, "cannot bind a region", ::fi_mr_bind(region, &endpoint_->fid, 0));
    require_success(*info_, "cannot enable a region", ::fi_mr_enable(region));
  }
  return owner;
}

std::uint64_t FabricNic::wire_address(std::span<std::byte> memory) const {
  return has_memory_mode(*info_, FI_MR_VIRT_ADDR) ? reinterpret_cast<std::uintptr_t>(memory.data())
                                                  : 0;
}

ssize_t FabricNic::write(const FabricWrite& write, FabricContext& context) {
  const fi_addr_t peer = peers_[write.peer.index()];
  if (write.has_immediate) {
    return ::fi_writedata(endpoint_.get(), write.source, write.bytes, write.source_descriptor,
                          write.immediate, peer, write.target, write.target_key, &context.context);
  }
  return ::fi_write(endpoint_.get(), write.source, write.bytes, write.source_descriptor, peer,
                    write.target, write.target_key, &context.context);
}

ssize_t FabricNic::read_completions(std::span<fi_cq_data_entry> entries) {
  post_waiting_receives();
  return ::fi_cq_read(queue_.get(), entries.data(), entries.size());
}

fi_cq_err_entry FabricNic::read_error(std::string& text) {
  fi_cq_err_entry entry{};
  const ssize_t result = ::fi_cq_readerr(queue_.get(), &entry, 0);
  require_success(*info_, "cannot read an error", result);
  std::array<char, kAddressBufferBytes> buffer{};
  const char* const detail = ::fi_cq_strerror(queue_.get(), entry.prov_errno, entry.err_data,
                                              buffer.data(), buffer.size());
  text = fmt::format("{}, {}", fabric_library().describe(entry.err),
                     detail == nullptr ? "no details" : detail);
  return entry;
}

}  // namespace moelink
