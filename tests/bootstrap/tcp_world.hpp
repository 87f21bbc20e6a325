// TCP groups on loopback for tests, and raw connections that misbehave on purpose.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <future>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bootstrap/tcp/handshake.hpp"
#include "bootstrap/tcp/poll_set.hpp"
#include "bootstrap/tcp/socket.hpp"
#include "bootstrap/tcp/tcp_bootstrap.hpp"
#include "conformance/rank_results.hpp"

namespace moelink::test {

inline constexpr const char* kSecret = "the job's secret";
inline constexpr const char* kLoopback = "127.0.0.1";

inline UniqueFd listen_on_loopback() {
  return tcp::listen_at({kLoopback, 0}, Deadline::after(kLongWait));
}

// A port that was free a moment ago.
inline std::uint16_t find_free_port() { return tcp::listening_port(listen_on_loopback()); }

inline RendezvousConfig tcp_config(int rank, int num_ranks, std::uint16_t port) {
  return {.rank = Rank(rank),
          .num_ranks = num_ranks,
          .host = kLoopback,
          .port = port,
          .secret = kSecret};
}

// A group in the making: rank 0 waits on a thread of its own until all have joined.
class Rendezvous {
 public:
  explicit Rendezvous(int num_ranks, const tcp::TcpOptions& options = {},
                      std::chrono::milliseconds wait = kLongWait)
      : num_ranks_(num_ranks), options_(options), wait_(wait) {
    UniqueFd listener = listen_on_loopback();
    port_ = tcp::listening_port(listener);
    host_ = std::async(std::launch::async, [this, fd = std::move(listener)]() mutable {
      return open_tcp_bootstrap_at(std::move(fd), tcp_config(0, num_ranks_, port_),
                                   Deadline::after(wait_), options_);
    });
  }

  std::uint16_t port() const { return port_; }
  RendezvousConfig config(int rank) const { return tcp_config(rank, num_ranks_, port_); }

  std::unique_ptr<Bootstrap> join(const RendezvousConfig& config) const {
    return open_tcp_bootstrap(config, Deadline::after(wait_), options_);
  }
  std::future<std::unique_ptr<Bootstrap>> join_later(int rank) const {
    return std::async(std::launch::async, [this, rank] { return join(config(rank)); });
  }
  std::unique_ptr<Bootstrap> take_host() { return host_.get(); }

  // Ranks 1 .. joining.size() are on their way already; the others join now.
  Bootstraps complete(std::vector<std::future<std::unique_ptr<Bootstrap>>> joining = {}) {
    for (int rank = static_cast<int>(joining.size()) + 1; rank < num_ranks_; ++rank) {
      joining.push_back(join_later(rank));
    }
    Bootstraps bootstraps;
    bootstraps.push_back(take_host());
    for (auto& member : joining) bootstraps.push_back(member.get());
    return bootstraps;
  }

  // The proof that whatever came before did no harm.
  void expect_job_completes(std::vector<std::future<std::unique_ptr<Bootstrap>>> joining = {}) {
    auto bootstraps = complete(std::move(joining));
    expect_all_succeeded(run_ranks(bootstraps, [](std::unique_ptr<Bootstrap>& bootstrap) {
      const auto blobs = gather(*bootstrap, blob_of(bootstrap->rank(), 100));
      EXPECT_EQ(blobs.back(), blob_of(Rank(bootstrap->num_ranks() - 1), 100));
    }));
  }

 private:
  int num_ranks_;
  tcp::TcpOptions options_;
  std::chrono::milliseconds wait_;
  std::uint16_t port_ = 0;
  std::future<std::unique_ptr<Bootstrap>> host_;
};

// Speaks whatever the test wants to rank 0.
class RawConnection {
 public:
  explicit RawConnection(std::uint16_t port)
      : socket_(tcp::try_connect({kLoopback, port}, Deadline::after(kLongWait)).socket) {
    EXPECT_TRUE(socket_.valid());
  }
  explicit RawConnection(UniqueFd socket) : socket_(std::move(socket)) {}

  void send(std::span<const std::uint8_t> bytes) { tcp::send_some(socket_.get(), bytes); }
  void send(const std::string& text) {
    send({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
  }

  // False if the other side closes first.
  bool receive(std::span<std::uint8_t> into) {
    const Deadline deadline = Deadline::after(kLongWait);
    while (!into.empty() && tcp::wait_for(socket_.get(), POLLIN, deadline)) {
      const auto received = tcp::receive_some(socket_.get(), into);
      if (received.status == tcp::IoStatus::kClosed) return false;
      into = into.subspan(received.num_bytes);
    }
    return into.empty();
  }

  rendezvous::ChallengeBytes receive_challenge() {
    rendezvous::ChallengeBytes challenge{};
    EXPECT_TRUE(receive(challenge));
    return challenge;
  }
  std::optional<rendezvous::Outcome> receive_outcome() {
    rendezvous::VerdictBytes bytes{};
    if (!receive(bytes)) return std::nullopt;
    const auto verdict = rendezvous::decode_verdict(bytes);
    return verdict ? std::optional(verdict->outcome) : std::nullopt;
  }
  bool is_closed_by_peer() {
    std::uint8_t byte = 0;
    return !receive({&byte, 1});
  }
  void close() { socket_.reset(); }
  UniqueFd take_socket() { return std::move(socket_); }

 private:
  UniqueFd socket_;
};

}  // namespace moelink::test
