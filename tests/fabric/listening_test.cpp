// A job's ports are open at the chosen addresses only, also where a host has other networks.
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <future>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "bootstrap/tcp/socket.hpp"
#include "conformance/outcomes.hpp"
#include "fabric/host_ranks.hpp"

namespace moelink::test {
namespace {

constexpr int kNumRanks = 2;
constexpr const char* kOtherAddress = "10.88.0.1";  // of host 0, in a network of its own

// "address:port" of every listening socket of this network namespace.
std::vector<std::string> listening_sockets() {
  std::istringstream lines(run_command(
      "for family in tcp tcp6; do awk '$4 == \"0A\" {print $2}' /proc/net/$family; done"));
  std::vector<std::string> sockets;
  for (std::string hex; lines >> hex;) {
    const std::size_t colon = hex.find(':');
    const unsigned long port = std::stoul(hex.substr(colon + 1), nullptr, 16);
    if (colon != 8) {
      sockets.push_back(fmt::format("[{}]:{}", hex.substr(0, colon), port));
      continue;
    }
    const unsigned long address = std::stoul(hex.substr(0, colon), nullptr, 16);  // host order
    sockets.push_back(fmt::format("{}.{}.{}.{}:{}", address & 0xff, address >> 8 & 0xff,
                                  address >> 16 & 0xff, address >> 24 & 0xff, port));
  }
  return sockets;
}

void require_only_at(const std::string& address) {
  const std::vector<std::string> sockets = listening_sockets();
  require(!sockets.empty(), "nobody listens");
  for (const std::string& socket : sockets) {
    require(socket.starts_with(address + ":"), "a port is open elsewhere: {}",
            fmt::join(sockets, ", "));
    const auto port = static_cast<std::uint16_t>(std::stoul(socket.substr(socket.find(':') + 1)));
    for (const char* other : {kOtherAddress, "127.0.0.1"}) {
      require(!tcp::try_connect({other, port}, soon()).socket.valid(), "{}:{} is open", other,
              port);
    }
  }
}

void add_other_network() {
  run_command("ip link add eth1 type veth peer name far1");
  run_command(fmt::format("ip address add {}/24 dev eth1", kOtherAddress));
  run_command("ip link set eth1 up && ip link set far1 up");
}

class Listening : public ::testing::Test {
 protected:
  void SetUp() override { skip_without_fabric(); }
};

void connect_and_look(Bootstrap& control) {
  const bool listens = control.rank() == Rank(0);
  if (listens) add_other_network();
  auto connecting = std::async(listens ? std::launch::async : std::launch::deferred,
                               [&] { return connect_job(control); });
  if (listens) {
    const Deadline deadline = soon();
    while (listening_sockets().empty() && !deadline.expired()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    require_only_at(HostNetwork::address(0));
  }
  control.barrier("rank 0 listens", soon());
  const Group group = connecting.get();
  require(listening_sockets().empty(), "still open: {}", fmt::join(listening_sockets(), ", "));
  // The ports of puts.
  TransportRank rank(group.bootstrap(), tcp_kind(), 4096);
  require_only_at(HostNetwork::address(control.rank().value()));
  control.barrier("looked", soon());
}

TEST_F(Listening, IsOnlyAtTheAddressOfTheRendezvousAndOfTheChosenCard) {
  const HostNetwork network(kNumRanks);
  const auto errors = run_on_hosts(network, kNumRanks, connect_and_look);
  EXPECT_EQ(errors, std::vector<std::string>(kNumRanks));
}

}  // namespace
}  // namespace moelink::test
