// Each rank's end of a thread hub.
#include "bootstrap/threads/thread_bootstrap.hpp"

#include <utility>

#include "bootstrap/membership.hpp"
#include "bootstrap/threads/thread_hub.hpp"

namespace moelink {

std::vector<std::unique_ptr<Bootstrap>> ThreadBootstrap::make(int num_ranks) {
  check_membership("group of threads", Rank(0), num_ranks);
  auto hub = std::make_shared<ThreadHub>(num_ranks);
  std::vector<std::unique_ptr<Bootstrap>> bootstraps;
  for (Rank rank(0); rank.value() < num_ranks; rank = rank.next()) {
    bootstraps.push_back(std::make_unique<ThreadBootstrap>(rank, hub));
  }
  return bootstraps;
}

ThreadBootstrap::ThreadBootstrap(Rank rank, std::shared_ptr<ThreadHub> hub)
    : rank_(rank), hub_(std::move(hub)) {}

ThreadBootstrap::~ThreadBootstrap() { hub_->depart(rank_); }

int ThreadBootstrap::num_ranks() const { return hub_->num_ranks(); }

std::vector<std::string> ThreadBootstrap::all_gather(const std::string& blob, const char* what,
                                                     const Deadline& deadline) {
  return hub_->all_gather(rank_, blob, what, deadline);
}

}  // namespace moelink
