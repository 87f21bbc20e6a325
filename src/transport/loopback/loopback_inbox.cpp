// Delivers between threads under one mutex per receiver.
#include "transport/loopback/loopback_inbox.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <random>
#include <utility>

namespace moelink {

namespace {

struct Publications {
  std::mutex mutex;
  std::uint64_t num_published = 0;
  std::map<std::string, std::weak_ptr<LoopbackInbox>> inboxes;
};

Publications& publications() {
  static Publications all;
  return all;
}

// Differs between processes, forked ones included, also where their numbers repeat.
std::string process_name() {
  static const std::uint64_t nonce = std::random_device{}();
  return fmt::format("{}.{:x}", ::getpid(), nonce);
}

}  // namespace

std::uint64_t LoopbackInbox::open_region(std::span<std::byte> memory) {
  const std::lock_guard lock(mutex_);
  regions_.emplace(++last_key_, memory);
  return last_key_;
}

void LoopbackInbox::close_region(std::uint64_t key) {
  const std::lock_guard lock(mutex_);
  regions_.erase(key);
}

LoopbackInbox::Outcome LoopbackInbox::deliver(const Delivery& delivery) {
  const std::lock_guard lock(mutex_);
  if (!open_) return Outcome::kClosed;
  const auto region = regions_.find(delivery.key);
  if (region == regions_.end()) return Outcome::kNoRegion;
  if (delivery.arrival && arrivals_.size() >= capacity_) return Outcome::kFull;
  if (!delivery.bytes.empty()) {
    std::memmove(region->second.data() + delivery.offset, delivery.bytes.data(),
                 delivery.bytes.size());
  }
  if (delivery.arrival) arrivals_.push_back(*delivery.arrival);
  return Outcome::kDone;
}

std::deque<Immediate> LoopbackInbox::take_arrivals() {
  const std::lock_guard lock(mutex_);
  return std::exchange(arrivals_, {});
}

void LoopbackInbox::close() {
  const std::lock_guard lock(mutex_);
  open_ = false;
}

bool LoopbackInbox::is_open() const {
  const std::lock_guard lock(mutex_);
  return open_;
}

std::string publish_inbox(const std::shared_ptr<LoopbackInbox>& inbox) {
  Publications& all = publications();
  const std::lock_guard lock(all.mutex);
  std::erase_if(all.inboxes, [](const auto& entry) { return entry.second.expired(); });
  std::string ticket = fmt::format("{}.{}", process_name(), ++all.num_published);
  all.inboxes[ticket] = inbox;
  return ticket;
}

std::shared_ptr<LoopbackInbox> find_inbox(const std::string& ticket) {
  Publications& all = publications();
  const std::lock_guard lock(all.mutex);
  const auto entry = all.inboxes.find(ticket);
  return entry == all.inboxes.end() ? nullptr : entry->second.lock();
}

}  // namespace moelink
