// Rank 0 of a TCP group: collects the blobs of all ranks and sends them to all.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/unique_fd.hpp"
#include "bootstrap/bootstrap.hpp"
#include "bootstrap/failure.hpp"
#include "bootstrap/tcp/handshake.hpp"
#include "bootstrap/tcp/peers.hpp"
#include "bootstrap/tcp/tcp_options.hpp"

namespace moelink::tcp {

// Works only inside its calls: there is no background thread. A failure ends the group on all
// ranks.
class TcpHost final : public Bootstrap {
 public:
  // Waits until all ranks have joined, then closes the listener.
  TcpHost(UniqueFd listener, const Credentials& credentials, int num_ranks,
          const TcpOptions& options, const Deadline& deadline);

  Rank rank() const override { return Rank(0); }
  int num_ranks() const override { return peers_.num_ranks(); }
  std::vector<std::string> all_gather(const std::string& blob, const char* what,
                                      const Deadline& deadline) override;

 private:
  using Blobs = std::vector<std::optional<std::string>>;

  void gather(Blobs& blobs, const std::string& what, const Deadline& deadline);
  void collect_parts(Blobs& blobs, const std::string& what);
  void distribute(const Blobs& blobs, const std::string& what, const Deadline& deadline);
  void run_round(const Deadline& deadline);
  [[noreturn]] void give_up(const Failure& failure);

  TcpOptions options_;
  Peers peers_;
  std::uint64_t sequence_ = 0;
  std::optional<Failure> failure_;
};

}  // namespace moelink::tcp
