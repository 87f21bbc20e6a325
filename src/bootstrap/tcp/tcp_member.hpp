// A rank other than 0 of a TCP group: sends its blob to rank 0 and gets all of them back.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bootstrap/bootstrap.hpp"
#include "bootstrap/failure.hpp"
#include "bootstrap/tcp/channel.hpp"
#include "bootstrap/tcp/handshake.hpp"
#include "bootstrap/tcp/join.hpp"
#include "bootstrap/tcp/tcp_options.hpp"

namespace moelink::tcp {

class TcpMember final : public Bootstrap {
 public:
  // Waits until rank 0 says that all ranks have joined.
  TcpMember(const Joiner& joiner, const Credentials& credentials, const TcpOptions& options,
            const Deadline& deadline);

  Rank rank() const override { return joiner_.rank; }
  int num_ranks() const override { return joiner_.num_ranks; }
  std::vector<std::string> all_gather(const std::string& blob, const char* what,
                                      const Deadline& deadline) override;

 private:
  // Of the expected kind; everything else becomes an exception.
  Frame await_frame(rendezvous::FrameKind kind, std::string_view what, const Deadline& deadline);
  Frame await_any_frame(std::string_view what, const Deadline& deadline);
  // Past the deadline: tells rank 0, which answers with the ranks that are missing.
  void stop_waiting(std::string_view what, const Deadline& deadline);
  [[noreturn]] void give_up(const Failure& failure);

  Joiner joiner_;
  TcpOptions options_;
  std::optional<Channel> channel_;
  std::uint64_t sequence_ = 0;
  std::optional<Deadline> last_patience_;  // set once the deadline of the collective has passed
  std::optional<Failure> failure_;
};

}  // namespace moelink::tcp
