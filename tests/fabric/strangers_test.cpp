// Somebody on a further host who does not know the job's secret, while the job's ranks meet.
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <ostream>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bootstrap/tcp/socket.hpp"
#include "bootstrap/tcp/tcp_bootstrap.hpp"
#include "conformance/outcomes.hpp"
#include "fabric/host_ranks.hpp"

namespace moelink::test {
namespace {

using std::chrono::seconds;

constexpr int kNumRanks = 2;
constexpr std::size_t kBlockBytes = 200'000;
constexpr int kStranger = 2;  // its host, and its place among the processes

const tcp::Endpoint kRankZero{HostNetwork::address(0), kDefaultRendezvousPort};

UniqueFd connect_to_rank_zero() {
  const Deadline deadline = soon();
  while (true) {
    tcp::ConnectAttempt attempt = tcp::try_connect(kRankZero, deadline);
    if (attempt.socket.valid()) return std::move(attempt.socket);
    require(!deadline.expired(), "cannot reach rank 0: {}", attempt.reason);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

void send_text(const UniqueFd& socket, const std::string& text) {
  tcp::send_some(socket.get(), {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
}

// Everything that the stranger holds until the job has met.
struct Siege {
  std::vector<UniqueFd> sockets;
  std::atomic<bool> over{false};
  std::thread dripping;

  ~Siege() {
    over = true;
    if (dripping.joinable()) dripping.join();
  }
};

std::string garbage() {
  std::string bytes;
  for (int i = 0; i < 5000; ++i) bytes.push_back(static_cast<char>(i * i * 31 + i / 7));
  return bytes;
}

void send_garbage(Siege& siege) {
  for (const std::string& text : {std::string("GET / HTTP/1.1\r\n\r\n"), garbage()}) {
    siege.sockets.push_back(connect_to_rank_zero());
    send_text(siege.sockets.back(), text);
  }
}

// Rank 0 hears nothing more from this host, not even that a connection has ended.
void fall_silent(Siege& siege) {
  for (int i = 0; i < 20; ++i) siege.sockets.push_back(connect_to_rank_zero());
  run_command("ip link set eth0 down");
  siege.sockets.clear();
}

// More connections than rank 0 keeps, each of which sends the beginning of a join, byte by byte.
void drip(Siege& siege) {
  for (int i = 0; i < 90; ++i) siege.sockets.push_back(connect_to_rank_zero());
  siege.dripping = std::thread([&siege] {
    const std::string preamble = "Moelink";
    for (std::size_t i = 0; !siege.over; ++i) {
      const std::string next = preamble.substr(std::min(i, preamble.size() - 1), 1);
      for (const UniqueFd& socket : siege.sockets) send_text(socket, next);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  });
}

struct Attack {
  const char* name;
  void (*begin)(Siege& siege);
};

void PrintTo(const Attack& attack, std::ostream* out) { *out << attack.name; }

// A rank's end; each connection may take longer than the whole meeting, so that waiting for one
// that is slow would end it.
void meet_the_other(int rank) {
  tcp::TcpOptions options;
  options.handshake_timeout = test_timeout(seconds(45));
  const auto bootstrap = open_tcp_bootstrap(job_config(Rank(rank), kNumRanks),
                                            Deadline::after(test_timeout(seconds(20))), options);
  const std::vector<std::string> blobs =
      bootstrap->all_gather("of " + std::to_string(rank), "exchange", soon());
  require(blobs == std::vector<std::string>{"of 0", "of 1"}, "the blobs are not the ranks'");
}

class Strangers : public ::testing::TestWithParam<Attack> {
 protected:
  void SetUp() override { skip_without_hosts(); }
};

TEST_P(Strangers, NeitherStopNorDelayTheJob) {
  const HostNetwork network(kStranger + 1);
  const auto errors = run_on_hosts(network, kStranger + 1, [](Bootstrap& control) {
    const int rank = control.rank().value();
    Siege siege;
    if (rank == 0) {
      auto meeting = std::async(std::launch::async, meet_the_other, 0);
      control.barrier("the stranger is there", soon());
      meeting.get();
    } else {
      if (rank == kStranger) GetParam().begin(siege);
      control.barrier("the stranger is there", soon());
      if (rank != kStranger) meet_the_other(rank);
    }
    control.barrier("the ranks have met", soon());
  });
  EXPECT_EQ(errors, std::vector<std::string>(kStranger + 1));
}

INSTANTIATE_TEST_SUITE_P(Hosts, Strangers,
                         ::testing::Values(Attack{"Garbage", send_garbage},
                                           Attack{"HalfOpenConnections", fall_silent},
                                           Attack{"SlowLoris", drip}),
                         [](const auto& parameter) { return std::string(parameter.param.name); });

class Stranger : public ::testing::Test {
 protected:
  void SetUp() override { skip_without_hosts(); }
};

void join_with(const std::string& secret) {
  RendezvousConfig config = job_config(Rank(1), kNumRanks);
  config.secret = secret;
  const Outcome outcome = outcome_of([&] { Group::connect(config, {.timeout = seconds(20)}); });
  require_failure(outcome, ErrorCode::kPeerLost, {"rank 1 was refused", "wrong secret"});
}

void knock_as_stranger(Bootstrap& control) {
  join_with("a guess");
  join_with(job_config(Rank(1), kNumRanks).secret + " ");
  control.barrier("the stranger was refused", soon());
  control.barrier("the ranks have met", soon());
  require(!tcp::try_connect(kRankZero, soon()).socket.valid(), "rank 0 still listens");
}

void meet_as_job(Bootstrap& control) {
  const auto connect = [&] {
    return Group::connect(job_config(control.rank(), kNumRanks), {.timeout = seconds(30)});
  };
  const bool listens = control.rank() == Rank(0);
  auto connecting = std::async(listens ? std::launch::async : std::launch::deferred, connect);
  control.barrier("the stranger was refused", soon());
  const Group group = connecting.get();
  require(group.all_gather("mine") == std::vector<std::string>(kNumRanks, "mine"), "wrong blobs");
  control.barrier("the ranks have met", soon());
}

TEST_F(Stranger, CannotJoinWithoutTheSecretNorConnectAfterwards) {
  const HostNetwork network(kStranger + 1);
  const auto errors = run_on_hosts(network, kStranger + 1, [](Bootstrap& control) {
    control.rank() == Rank(kStranger) ? knock_as_stranger(control) : meet_as_job(control);
  });
  EXPECT_EQ(errors, std::vector<std::string>(kStranger + 1));
}

// Where this host listens; libfabric chooses its ports itself.
std::vector<std::uint16_t> listening_ports() {
  std::istringstream lines(run_command(
      "awk '$4 == \"0A\" {split($2, at, \":\"); print at[2]}' /proc/net/tcp /proc/net/tcp6"));
  std::vector<std::uint16_t> ports;
  for (std::string port; lines >> port;) {
    ports.push_back(static_cast<std::uint16_t>(std::stoul(port, nullptr, 16)));
  }
  return ports;
}

// Silent, slow and wild connections to the ports through which puts come.
void bother(Siege& siege, const std::string& ports) {
  std::istringstream list(ports);
  for (std::uint16_t port = 0; list >> port;) {
    for (int i = 0; i < 30; ++i) {
      tcp::ConnectAttempt attempt = tcp::try_connect({HostNetwork::address(0), port}, soon());
      require(attempt.socket.valid(), "cannot reach port {}: {}", port, attempt.reason);
      siege.sockets.push_back(std::move(attempt.socket));
      if (i % 3 != 0) send_text(siege.sockets.back(), i % 3 == 1 ? "\x01" : garbage());
    }
  }
}

TEST_F(Stranger, AtThePortsOfPutsDoesNotDisturbThem) {
  skip_without_fabric();
  if (IsSkipped()) return;
  const HostNetwork network(kStranger + 1);
  const auto errors = run_on_hosts(network, kStranger + 1, [](Bootstrap& control) {
    Siege siege;
    if (control.rank() == Rank(kStranger)) {
      bother(siege, control.all_gather("", "ports", soon())[0]);
      control.barrier("the stranger is there", soon());
      return control.barrier("the puts have arrived", soon());
    }
    const Group group = Group::connect(job_config(control.rank(), kNumRanks));
    TransportRank rank(group.bootstrap(), tcp_kind(), kNumRanks * kBlockBytes);
    const auto ports = listening_ports();
    require(!ports.empty(), "nobody listens");
    control.all_gather(fmt::format("{}", fmt::join(ports, " ")), "ports", soon());
    control.barrier("the stranger is there", soon());
    exchange_blocks(rank, {kBlockBytes, 4096, 20, 0});
    control.barrier("the puts have arrived", soon());
  });
  EXPECT_EQ(errors, std::vector<std::string>(kStranger + 1));
}

}  // namespace
}  // namespace moelink::test
