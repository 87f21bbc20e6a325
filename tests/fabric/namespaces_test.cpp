// The hosts that the other tests run on.
#include "fabric/namespaces.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "conformance/memory_probes.hpp"
#include "fabric/host_ranks.hpp"

namespace moelink::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class HostNetworkTest : public ::testing::Test {
 protected:
  void SetUp() override { skip_without_hosts(); }

  static std::string own_namespace() {
    return std::filesystem::read_symlink("/proc/thread-self/ns/net").string();
  }
};

TEST_F(HostNetworkTest, HostsReachEachOtherAndNothingElse) {
  const HostNetwork network(2);
  const auto errors = run_on_hosts(network, 2, [](Bootstrap& control) {
    const std::string links = run_command("ip -oneline link show");
    require(std::ranges::count(links, '\n') == 2, "expected lo and eth0, seen: {}", links);
    require(connect_job(control).num_ranks() == 2, "the hosts do not form a group");
  });
  EXPECT_EQ(errors, std::vector<std::string>(2));
}

TEST_F(HostNetworkTest, LeavesNothingBehindWhenATestFails) {
  const std::string home = own_namespace();
  const std::size_t descriptors = count_open_descriptors();
  EXPECT_THROW(
      {
        const HostNetwork network(3);
        network.run(1, "false");
      },
      std::runtime_error);
  EXPECT_EQ(own_namespace(), home);
  EXPECT_THAT(run_command("ip -oneline link show"), Not(HasSubstr(" port0")));
  EXPECT_EQ(count_open_descriptors(), descriptors);
}

}  // namespace
}  // namespace moelink::test
