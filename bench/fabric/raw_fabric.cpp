// Puts by bare calls of libfabric: what Moelink's transport is compared with.
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <sched.h>

#include <array>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "contestant.hpp"

namespace moelink::bench {

namespace {

constexpr int kMaxIdlePolls = 64;

void require(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(std::string("libfabric: ") + what);
}

// Asks for memory of GPUs first, as Moelink does: providers answer with different settings.
fi_info* find_provider(const std::string& provider, bool hmem = true) {
  fi_info* const hints = ::fi_allocinfo();
  hints->caps = FI_MSG | FI_RMA | (hmem ? FI_HMEM : 0);
  hints->mode = FI_CONTEXT | FI_CONTEXT2;
  hints->ep_attr->type = FI_EP_RDM;
  hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY |
                                FI_MR_ENDPOINT | (hmem ? FI_MR_HMEM : 0);
  hints->domain_attr->threading = FI_THREAD_DOMAIN;
  hints->domain_attr->control_progress = FI_PROGRESS_MANUAL;
  hints->domain_attr->data_progress = FI_PROGRESS_MANUAL;
  hints->fabric_attr->prov_name = ::strdup(provider.c_str());
  fi_info* found = nullptr;
  const int result = ::fi_getinfo(FI_VERSION(1, 17), nullptr, nullptr, 0, hints, &found);
  ::fi_freeinfo(hints);
  if (result != 0 && hmem) return find_provider(provider, false);
  require(result == 0, "no such provider");
  return found;
}

class RawFabric final : public Contestant {
 public:
  RawFabric(Pair& pair, const std::string& provider)
      : info_(find_provider(provider)), heap_(kHeapBytes), contexts_(kQueueDepth) {
    open_endpoint();
    for (fi_context2& context : contexts_) free_.push_back(&context);
    meet(pair);
  }
  ~RawFabric() override {
    for (fid* const object : {&region_->fid, &endpoint_->fid, &queue_->fid, &addresses_->fid,
                              &domain_->fid, &fabric_->fid}) {
      ::fi_close(object);
    }
    ::fi_freeinfo(info_);
  }

  void put(std::size_t offset, std::size_t bytes) override {
    while (free_.empty()) poll();
    fi_context2* const context = free_.back();
    ssize_t result = -FI_EAGAIN;
    while (result == -FI_EAGAIN) {
      result = ::fi_writedata(endpoint_, heap_.data() + offset, bytes, ::fi_mr_desc(region_), 1,
                              peer_, peer_address_ + offset, peer_key_, context);
      if (result == -FI_EAGAIN) poll();
    }
    require(result == 0, "a put failed");
    free_.pop_back();
  }
  void await(std::uint64_t num_arrivals) override {
    while (num_arrivals_ < num_arrivals) poll();
  }
  void flush() override {
    while (free_.size() < contexts_.size()) poll();
  }

 private:
  void open_endpoint() {
    fi_cq_attr queue{};
    queue.format = FI_CQ_FORMAT_DATA;
    queue.size = 2 * kQueueDepth;
    fi_av_attr book{};
    book.type = FI_AV_TABLE;
    require(::fi_fabric(info_->fabric_attr, &fabric_, nullptr) == 0, "no fabric");
    require(::fi_domain(fabric_, info_, &domain_, nullptr) == 0, "no domain");
    require(::fi_cq_open(domain_, &queue, &queue_, nullptr) == 0, "no queue");
    require(::fi_av_open(domain_, &book, &addresses_, nullptr) == 0, "no addresses");
    require(::fi_endpoint(domain_, info_, &endpoint_, nullptr) == 0, "no endpoint");
    require(::fi_ep_bind(endpoint_, &addresses_->fid, 0) == 0, "cannot bind addresses");
    require(::fi_ep_bind(endpoint_, &queue_->fid, FI_TRANSMIT | FI_RECV) == 0,
            "cannot bind the queue");
    require(::fi_enable(endpoint_) == 0, "cannot enable");
    require(::fi_mr_reg(domain_, heap_.data(), heap_.size(), FI_WRITE | FI_REMOTE_WRITE, 0, 1, 0,
                        &region_, nullptr) == 0,
            "cannot register");
  }

  void meet(Pair& pair) {
    std::array<char, 256> name{};
    std::size_t size = name.size();
    require(::fi_getname(&endpoint_->fid, name.data(), &size) == 0, "no name");
    const auto other = static_cast<std::size_t>(1 - pair.rank());
    const std::string address = pair.exchange(std::string(name.data(), size))[other];
    require(::fi_av_insert(addresses_, address.data(), 1, &peer_, 0, nullptr) == 1,
            "cannot insert the peer");
    const bool by_address = (info_->domain_attr->mr_mode & FI_MR_VIRT_ADDR) != 0;
    const std::array<std::uint64_t, 2> own = {
        by_address ? reinterpret_cast<std::uintptr_t>(heap_.data()) : 0, ::fi_mr_key(region_)};
    const std::string text =
        pair.exchange(std::string(reinterpret_cast<const char*>(own.data()), sizeof(own)))[other];
    std::array<std::uint64_t, 2> theirs{};
    std::memcpy(theirs.data(), text.data(), sizeof(theirs));
    peer_address_ = theirs[0];
    peer_key_ = theirs[1];
  }

  void poll() {
    std::array<fi_cq_data_entry, 32> entries;
    const ssize_t count = ::fi_cq_read(queue_, entries.data(), entries.size());
    require(count >= 0 || count == -FI_EAGAIN, "an operation failed");
    num_idle_polls_ = count > 0 ? 0 : num_idle_polls_ + 1;
    // As everybody must where processes share cores; else the comparison would measure that.
    if (num_idle_polls_ > kMaxIdlePolls) ::sched_yield();
    for (ssize_t i = 0; i < count; ++i) {
      const fi_cq_data_entry& entry = entries[static_cast<std::size_t>(i)];
      if ((entry.flags & FI_REMOTE_CQ_DATA) != 0) {
        ++num_arrivals_;
      } else {
        free_.push_back(static_cast<fi_context2*>(entry.op_context));
      }
    }
  }

  fi_info* info_;
  fid_fabric* fabric_ = nullptr;
  fid_domain* domain_ = nullptr;
  fid_av* addresses_ = nullptr;
  fid_cq* queue_ = nullptr;
  fid_ep* endpoint_ = nullptr;
  fid_mr* region_ = nullptr;
  std::vector<std::byte> heap_;
  std::vector<fi_context2> contexts_;
  std::vector<fi_context2*> free_;
  fi_addr_t peer_ = FI_ADDR_UNSPEC;
  std::uint64_t peer_address_ = 0;
  std::uint64_t peer_key_ = 0;
  std::uint64_t num_arrivals_ = 0;
  int num_idle_polls_ = 0;
};

}  // namespace

std::unique_ptr<Contestant> open_raw_fabric(Pair& pair, const std::string& provider) {
  return std::make_unique<RawFabric>(pair, provider);
}

}  // namespace moelink::bench
