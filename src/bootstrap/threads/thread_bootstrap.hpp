// A bootstrap among threads of one process.
#pragma once

#include <memory>
#include <vector>

#include "bootstrap/bootstrap.hpp"

namespace moelink {

class ThreadHub;

// Destroying a rank's object makes the others' calls fail with Error(kPeerLost) naming it. After a
// failure the whole group stays failed.
class ThreadBootstrap final : public Bootstrap {
 public:
  // Element i belongs to rank i.
  static std::vector<std::unique_ptr<Bootstrap>> make(int num_ranks);

  ThreadBootstrap(Rank rank, std::shared_ptr<ThreadHub> hub);
  ~ThreadBootstrap() override;
  ThreadBootstrap(const ThreadBootstrap&) = delete;
  ThreadBootstrap& operator=(const ThreadBootstrap&) = delete;

  Rank rank() const override { return rank_; }
  int num_ranks() const override;
  std::vector<std::string> all_gather(const std::string& blob, const char* what,
                                      const Deadline& deadline) override;

 private:
  Rank rank_;
  std::shared_ptr<ThreadHub> hub_;
};

}  // namespace moelink
