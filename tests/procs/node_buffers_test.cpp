// Buffers of processes on several nodes: what stays behind, and what the environment may ask for.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "conformance/buffer_rank.hpp"
#include "conformance/forked_bootstrap.hpp"
#include "conformance/open_buffers.hpp"
#include "conformance/small_low_latency.hpp"

namespace moelink::test {
namespace {

constexpr int kNumRanks = 2;

// What a process holds, and what it has left where others see it.
struct Holdings {
  std::size_t descriptors = count_open_descriptors();
  std::size_t regions = count_mappings("memfd:moelink");
  std::size_t shm_mappings = count_mappings("/dev/shm");
  std::size_t shm_files = count_own_shm_files();

  // libfabric's provider names its files after the process.
  static std::size_t count_own_shm_files() {
    const std::string process = std::to_string(::getpid());
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
      if (entry.path().filename().string().find(process) != std::string::npos) ++count;
    }
    return count;
  }
};

void use_and_close(Bootstrap& bootstrap) {
  Buffer buffer(group_over(bootstrap, {.num_nodes = kNumRanks}), {});
  use_once(buffer);
  use_low_latency_once(buffer, kNumRanks);
  buffer.close();
}

class NodeBuffers : public ::testing::TestWithParam<const char*> {};

TEST_P(NodeBuffers, OpenedAndClosedManyTimesLeaveNothingBehind) {
  const auto errors = run_process_ranks(kNumRanks, [](Bootstrap& bootstrap) {
    ::setenv("MOELINK_FABRIC_PROVIDER", GetParam(), 1);
    for (int i = 0; i < 3; ++i) use_and_close(bootstrap);
    bootstrap.barrier("all have closed", soon());
    const Holdings before;
    for (int i = 0; i < 50; ++i) use_and_close(bootstrap);
    bootstrap.barrier("all have closed", soon());
    const Holdings after;
    require(after.descriptors <= before.descriptors, "{} descriptors, {} before", after.descriptors,
            before.descriptors);
    require(after.regions == 0, "{} regions are still mapped", after.regions);
    require(after.shm_mappings <= before.shm_mappings, "{} mappings of shared memory, {} before",
            after.shm_mappings, before.shm_mappings);
    require(after.shm_files <= before.shm_files, "{} files, {} before", after.shm_files,
            before.shm_files);
  });
  EXPECT_EQ(errors, std::vector<std::string>(kNumRanks));
}

INSTANTIATE_TEST_SUITE_P(Providers, NodeBuffers, ::testing::Values("tcp", "shm"),
                         [](const auto& instance) { return std::string(instance.param); });

// Opens a buffer on two nodes with a variable that rank 0 and rank 1 may set differently.
std::vector<std::string> open_with(const char* variable, const char* first, const char* second,
                                   ErrorCode code, const std::vector<std::string>& words) {
  return run_process_ranks(kNumRanks, [&](Bootstrap& bootstrap) {
    ::setenv(variable, bootstrap.rank() == Rank(0) ? first : second, 1);
    const Group group = group_over(bootstrap, {.num_nodes = kNumRanks});
    std::vector<std::string> all = words;
    all.push_back(fmt::format("Buffer (rank {})", bootstrap.rank().value()));
    require_failure(outcome_of([&] { Buffer(group, {}); }), code, all);
    bootstrap.barrier("both were refused", soon());
  });
}

TEST(NodeBuffersEnvironment, LoopbackBetweenProcessesIsRefusedByAllWithARemedy) {
  EXPECT_EQ(open_with("MOELINK_NETWORK", "loopback", "loopback", ErrorCode::kUnsupported,
                      {"no network between 2 nodes", "in another process",
                       "loopback connects threads of one process only", "MOELINK_NETWORK=memory"}),
            std::vector<std::string>(kNumRanks));
}

TEST(NodeBuffersEnvironment, NetworksThatDifferBetweenRanksAreRefusedByAll) {
  EXPECT_EQ(open_with("MOELINK_NETWORK", "libfabric", "memory", ErrorCode::kInvalidArgument,
                      {"MOELINK_NETWORK (0 auto, 1 libfabric, 2 loopback, 3 memory) is 3 on rank 1 "
                       "but 1 on rank 0"}),
            std::vector<std::string>(kNumRanks));
}

TEST(NodeBuffersEnvironment, PathsThatDifferBetweenRanksAreRefusedByAll) {
  EXPECT_EQ(open_with("MOELINK_NETWORK_MODE", "direct", "auto", ErrorCode::kInvalidArgument,
                      {"network_path (1 hierarchical, 2 direct) is 1 on rank 1 but 2 on rank 0"}),
            std::vector<std::string>(kNumRanks));
}

TEST(NodeBuffersEnvironment, NodesOfOneHostMayShareMemory) {
  const auto errors = run_process_ranks(kNumRanks, [](Bootstrap& bootstrap) {
    ::setenv("MOELINK_NETWORK", "memory", 1);
    Buffer buffer(group_over(bootstrap, {.num_nodes = kNumRanks}), {});
    use_once(buffer);
    require(buffer.network_statistics().num_messages == 0, "messages between nodes");
    buffer.close();
  });
  EXPECT_EQ(errors, std::vector<std::string>(kNumRanks));
}

}  // namespace
}  // namespace moelink::test
