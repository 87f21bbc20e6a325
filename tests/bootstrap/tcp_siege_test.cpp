// A crowd of strangers at the rendezvous port while a job's ranks join: thousands of connections
// that are mutated, cut short, replayed, reflected, dripped or torn, by a fixed seed.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "bootstrap/tcp_world.hpp"

namespace moelink::test {
namespace {

using Bytes = std::vector<std::uint8_t>;
using Clock = std::chrono::steady_clock;

constexpr int kNumRanks = 3;
constexpr int kNumStrangers = 4;
constexpr int kConnectionsEach = 500;
// Far above what a join takes, far below what waiting for a single stranger would take.
constexpr std::chrono::seconds kJoinPatience{10};

enum class Trick : std::uint8_t {
  kNothing,  // silence
  kGarbage,
  kMutated,    // a valid join with some bits flipped
  kCut,        // the beginning of a valid join, then the end of the connection
  kReplayed,   // a valid join of an earlier connection
  kReflected,  // rank 0's own challenge
  kStretched,  // a join without proof, and more bytes than anybody wants
  kGuessed,    // a join by another secret
  kDripped,    // a valid join's beginning, byte by byte, for as long as it is let
  kTorn,       // a reset in the middle
};
constexpr std::size_t kNumTricks = 10;

// One stranger: it has seen joins of the job on the wire, but does not know the secret. (The fuzzer
// does, to make joins that are almost valid.)
class Stranger {
 public:
  Stranger(std::uint16_t port, unsigned seed) : port_(port), random_(seed) {}

  // False once nobody listens any more.
  bool connect_once() {
    auto attempt = tcp::try_connect({kLoopback, port_}, Deadline::after(kLongWait));
    if (!attempt.socket.valid()) return false;
    RawConnection connection(std::move(attempt.socket));
    rendezvous::ChallengeBytes challenge{};
    if (!connection.receive(challenge)) return false;
    play(static_cast<Trick>(below(kNumTricks)), connection, challenge);
    drip();
    return true;
  }

  int num_accepted() const { return num_accepted_; }
  std::size_t num_kinds() const {
    return static_cast<std::size_t>(std::ranges::count(seen_, true));
  }

 private:
  struct Dripping {
    RawConnection connection;
    Bytes rest;
  };

  std::size_t below(std::size_t end) {
    return std::uniform_int_distribution<std::size_t>(0, end - 1)(random_);
  }

  Bytes garbage(std::size_t size) {
    Bytes bytes(size);
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(below(256));
    return bytes;
  }

  Bytes valid_join(const rendezvous::ChallengeBytes& challenge) {
    const auto join =
        tcp::JoinerHandshake(credentials_, Rank(1 + static_cast<int>(below(2))), kNumRanks)
            .answer(challenge);
    return {join.begin(), join.end()};
  }

  void play(Trick trick, RawConnection& connection, const rendezvous::ChallengeBytes& challenge) {
    seen_[static_cast<std::size_t>(trick)] = true;
    switch (trick) {
      case Trick::kNothing:
        return keep(connection, {});
      case Trick::kDripped:
        return keep(connection, cut(valid_join(challenge)));
      case Trick::kCut:
        return connection.send(cut(valid_join(challenge)));
      case Trick::kTorn:
        return tear(connection, cut(valid_join(challenge)));
      default:
        connection.send(complete_message(trick, challenge));
        return look_at_answer(connection);
    }
  }

  Bytes complete_message(Trick trick, const rendezvous::ChallengeBytes& challenge) {
    Bytes join = valid_join(challenge);
    if (trick == Trick::kMutated) {
      const std::size_t first = below(join.size());  // no later change falls on it
      const std::size_t num_more = below(3);
      for (std::size_t i = 0; i <= num_more; ++i) {
        const std::size_t at = (first + (i == 0 ? 0 : 1 + below(join.size() - 1))) % join.size();
        join[at] ^= static_cast<std::uint8_t>(1 + below(255));
      }
      return join;
    }
    if (trick == Trick::kReplayed) return recorded_;
    if (trick == Trick::kReflected) return {challenge.begin(), challenge.end()};
    if (trick == Trick::kGuessed) {
      const tcp::Credentials guess(Rank(1), "a guess");
      const auto bytes = tcp::JoinerHandshake(guess, Rank(1), kNumRanks).answer(challenge);
      return {bytes.begin(), bytes.end()};
    }
    if (trick == Trick::kGarbage) return garbage(1 + below(400));
    std::fill(join.end() - rendezvous::kProofBytes, join.end(), std::uint8_t{0});
    const Bytes more = garbage(1 + below(100'000));
    join.insert(join.end(), more.begin(), more.end());
    return join;
  }

  Bytes cut(Bytes join) {
    join.resize(below(join.size()));
    return join;
  }

  void tear(RawConnection& connection, const Bytes& beginning) {
    connection.send(beginning);
    const UniqueFd socket = connection.take_socket();
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  }

  void look_at_answer(RawConnection& connection) {
    // Garbage may be the beginning of something, so it is not waited for.
    std::array<std::uint8_t, rendezvous::kVerdictBytes> bytes{};
    const UniqueFd socket = connection.take_socket();
    if (!tcp::wait_for(socket.get(), POLLIN, Deadline::after(std::chrono::milliseconds(20))))
      return;
    if (tcp::receive_some(socket.get(), bytes).num_bytes < bytes.size()) return;
    const auto verdict = rendezvous::decode_verdict(bytes);
    if (verdict && verdict->outcome == rendezvous::Outcome::kAccepted) ++num_accepted_;
  }

  void keep(RawConnection& connection, Bytes rest) {
    constexpr std::size_t kMostKept = 30;
    if (kept_.size() == kMostKept) kept_.pop_front();
    kept_.push_back({std::move(connection), std::move(rest)});
  }

  void drip() {
    for (Dripping& dripping : kept_) {
      if (dripping.rest.empty()) continue;
      dripping.connection.send(std::span(dripping.rest).first(1));
      dripping.rest.erase(dripping.rest.begin());
    }
  }

  std::uint16_t port_;
  std::mt19937 random_;
  tcp::Credentials credentials_{Rank(1), kSecret};
  Bytes recorded_ = valid_join(rendezvous::encode(rendezvous::Challenge{}));
  std::deque<Dripping> kept_;
  std::array<bool, kNumTricks> seen_{};
  int num_accepted_ = 0;
};

// Strangers that first make their connections and then go on until nobody listens.
class Siege {
 public:
  explicit Siege(std::uint16_t port) {
    for (unsigned i = 0; i < kNumStrangers; ++i) {
      strangers_.push_back(std::make_unique<Stranger>(port, 20260101 + i));
      threads_.emplace_back([this, &stranger = *strangers_.back()] {
        while (stranger.connect_once()) ++num_connections_;
      });
    }
  }
  ~Siege() { lift(); }

  bool wait_for_connections(int wanted) const {
    const Deadline deadline = Deadline::after(kLongWait);
    while (num_connections_ < wanted && !deadline.expired()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return num_connections_ >= wanted;
  }
  // Returns once nobody listens.
  void lift() {
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }
  const std::vector<std::unique_ptr<Stranger>>& strangers() const { return strangers_; }

 private:
  std::atomic<int> num_connections_{0};
  std::vector<std::unique_ptr<Stranger>> strangers_;
  std::vector<std::thread> threads_;
};

TEST(TcpSiege, TwoThousandStrangersNeitherJoinNorDelayTheRanks) {
  testing::internal::CaptureStderr();
  tcp::TcpOptions options;
  options.handshake_timeout = kLongWait;  // so that nobody is rid of a stranger by waiting
  Rendezvous job(kNumRanks, options);
  Siege siege(job.port());
  // One rank comes early and waits among them, the other one late; then the job begins.
  std::vector<std::future<std::unique_ptr<Bootstrap>>> joining;
  joining.push_back(job.join_later(1));
  EXPECT_TRUE(siege.wait_for_connections(kNumStrangers * kConnectionsEach));
  const Clock::time_point begin = Clock::now();
  joining.push_back(job.join_later(2));
  job.expect_job_completes(std::move(joining));
  EXPECT_LT(Clock::now() - begin, kJoinPatience);
  siege.lift();
  for (const auto& stranger : siege.strangers()) {
    EXPECT_EQ(stranger->num_accepted(), 0);
    EXPECT_EQ(stranger->num_kinds(), kNumTricks);
  }
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_LT(std::count(log.begin(), log.end(), '\n'), 30) << log;
}

}  // namespace
}  // namespace moelink::test
