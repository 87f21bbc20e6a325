// What buffers on several nodes refuse, beyond what others do.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "conformance/open_buffers.hpp"

namespace moelink::test {
namespace {

constexpr int kNumRanks = 2;

std::vector<Group> two_nodes() { return Group::of_threads(kNumRanks, {.num_nodes = 2}); }

class NetworkRows : public ::testing::TestWithParam<NetworkPath> {
 protected:
  Buffer& buffer(int rank) { return buffers_[static_cast<std::size_t>(rank)]; }

  // Nothing is sent before, so the buffers stay usable.
  void expect_refused(const std::vector<Outcome>& outcomes, const char* call,
                      const std::vector<std::string>& words) {
    for (std::size_t rank = 0; rank < outcomes.size(); ++rank) {
      expect_failure(outcomes[rank], ErrorCode::kUnsupported,
                     {std::string(call) + " (rank " + std::to_string(rank) + ")",
                      "does not fit a message between nodes, expected at most"});
      expect_failure(outcomes[rank], ErrorCode::kUnsupported, words);
    }
    expect_usable(buffers_);
  }

  std::vector<Buffer> buffers_ =
      open_buffers(two_nodes(), {.timeout = std::chrono::seconds(10), .network_path = GetParam()});
};

TEST_P(NetworkRows, LargerThanAMessageAreRefusedByDispatchWithTheirBytes) {
  Tensor x = make_host_tensor(DType::kFloat32, {5, 1 << 18});
  expect_refused(on_all_ranks(kNumRanks,
                              [&](int rank) {
                                SmallCall small(kNumRanks);
                                small.config.x = x.view;
                                buffer(rank).dispatch(small.config);
                              }),
                 "dispatch", {"a row of 1048576 bytes", "at most 262080"});
}

TEST_P(NetworkRows, LargerThanAMessageAreRefusedByCachedDispatchAndCombine) {
  std::vector<DispatchResult> received(kNumRanks);
  expect_success(on_all_ranks(kNumRanks, [&](int rank) {
    received[static_cast<std::size_t>(rank)] = buffer(rank).dispatch(SmallCall(kNumRanks).config);
  }));
  const auto handle = [&](int rank) { return received[static_cast<std::size_t>(rank)].handle; };
  Tensor x = make_host_tensor(DType::kFloat32, {5, 1 << 18});
  expect_refused(
      on_all_ranks(kNumRanks,
                   [&](int rank) { buffer(rank).dispatch({.x = x.view, .handle = handle(rank)}); }),
      "cached_dispatch", {"a row of 1048576 bytes"});
  expect_refused(on_all_ranks(kNumRanks,
                              [&](int rank) {
                                const Tensor rows = make_host_tensor(
                                    DType::kFloat32, {handle(rank)->num_recv_rows(), 1 << 18});
                                buffer(rank).combine({.x = rows.view, .handle = handle(rank)});
                              }),
                 "combine", {"a row of 1048576 bytes"});
}

TEST_P(NetworkRows, LargerThanAMessageAreRefusedByLowLatencyDispatch) {
  Tensor x = make_host_tensor(DType::kBFloat16, {1, 1 << 17});
  Tensor topk = make_host_tensor(DType::kInt64, {1, 1});
  topk.view.as<std::int64_t>()[0] = 0;
  LowLatencyDispatchConfig config;
  config.x = x.view;
  config.topk_idx = topk.view;
  config.num_max_tokens_per_rank = 1;
  config.num_experts = kNumRanks;
  expect_refused(
      on_all_ranks(kNumRanks, [&](int rank) { buffer(rank).low_latency_dispatch(config); }),
      "low_latency_dispatch", {"a row of 262144 bytes", "at most 262080"});
}

INSTANTIATE_TEST_SUITE_P(Paths, NetworkRows,
                         ::testing::Values(NetworkPath::kHierarchical, NetworkPath::kDirect),
                         [](const auto& instance) {
                           return instance.param == NetworkPath::kDirect ? "Direct"
                                                                         : "Hierarchical";
                         });

// Opens buffers of two ranks; rank 1 with a configuration of its own.
std::vector<Outcome> open_with(const std::vector<Group>& groups, const BufferConfig& first,
                               const BufferConfig& second) {
  return on_all_ranks(kNumRanks, [&](int rank) {
    Buffer(groups[static_cast<std::size_t>(rank)], rank == 0 ? first : second);
  });
}

TEST(NetworkConfigs, HierarchicalPathsThatShouldMaskLostRanksAreRefusedByAll) {
  const std::vector<Group> groups = two_nodes();
  const BufferConfig config{.survival = Survival::kMask,
                            .network_path = NetworkPath::kHierarchical};
  const auto outcomes = open_with(groups, config, config);
  for (std::size_t rank = 0; rank < outcomes.size(); ++rank) {
    expect_failure(outcomes[rank], ErrorCode::kInvalidArgument,
                   {"Buffer (rank " + std::to_string(rank) + ")", "network_path is hierarchical",
                    "survival is mask", "2 nodes", "expected network_path direct or auto"});
  }
  std::vector<Buffer> buffers = open_buffers(groups, {.survival = Survival::kMask});
  expect_usable(buffers);
}

TEST(NetworkConfigs, HierarchicalPathsMayMaskLostRanksWhereNoNetworkIs) {
  std::vector<Buffer> buffers =
      open_buffers(Group::of_threads(kNumRanks, {.num_nodes = 1}),
                   {.survival = Survival::kMask, .network_path = NetworkPath::kHierarchical});
  expect_usable(buffers);
}

TEST(NetworkConfigs, PathsThatDifferBetweenRanksAreRefusedByAll) {
  const std::vector<Group> groups = two_nodes();
  for (const Outcome& outcome : open_with(groups, {.network_path = NetworkPath::kDirect},
                                          {.network_path = NetworkPath::kHierarchical})) {
    expect_failure(outcome, ErrorCode::kInvalidArgument,
                   {"network_path (1 hierarchical, 2 direct) is 1 on rank 1 but 2 on rank 0"});
  }
  std::vector<Buffer> buffers = open_buffers(groups);
  expect_usable(buffers);
}

// Ranks that mask would agree on masks after each exchange, and the others would not.
TEST(NetworkConfigs, SurvivalThatDiffersBetweenRanksIsRefusedByAll) {
  for (const int num_nodes : {1, 2}) {
    const std::vector<Group> groups = Group::of_threads(kNumRanks, {.num_nodes = num_nodes});
    for (const Outcome& outcome :
         open_with(groups, {.network_path = NetworkPath::kDirect},
                   {.survival = Survival::kMask, .network_path = NetworkPath::kDirect})) {
      expect_failure(outcome, ErrorCode::kInvalidArgument,
                     {"survival (0 raise, 1 mask) is 1 on rank 1 but 0 on rank 0"});
    }
  }
}

}  // namespace
}  // namespace moelink::test
