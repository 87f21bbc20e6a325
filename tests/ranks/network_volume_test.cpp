// How much of a dispatch crosses the network.
#include <gtest/gtest.h>

#include "conformance/buffer_rank.hpp"
#include "conformance/heap_tensors.hpp"
#include "conformance/thread_ranks.hpp"

namespace moelink::test {
namespace {

constexpr BufferKind kThreads{"Threads", run_thread_ranks, allocate_on_heap, copy_on_heap,
                              copy_on_heap};

struct Volume {
  std::uint64_t num_nodes = 0;  // distinct other nodes of all tokens together
  std::uint64_t num_ranks = 0;  // distinct ranks there
};

Volume volume_of(const Topology& topology, Rank rank, const DispatchResult& received) {
  Volume volume;
  const Tensor in_rank = received.handle->is_token_in_rank();
  const auto* sent = in_rank.view.as<std::uint8_t>();
  for (std::int64_t token = 0; token < in_rank.view.shape[0]; ++token) {
    for (int node = 0; node < topology.num_nodes; ++node) {
      std::uint64_t ranks = 0;
      for (int i = 0; i < topology.ranks_per_node(); ++i) ranks += *sent++;
      if (Node(node) == topology.node_of(rank)) continue;
      volume.num_nodes += ranks > 0 ? 1 : 0;
      volume.num_ranks += ranks;
    }
  }
  return volume;
}

class NetworkVolume : public ::testing::TestWithParam<NetworkPath> {};

TEST_P(NetworkVolume, IsOneRowForEachNodeOrRankThatTokensGoTo) {
  const bool direct = GetParam() == NetworkPath::kDirect;
  const BufferCase one{.topology = {8, 2}, .num_topk = 6, .num_tokens = {40, 3}};
  const auto errors = run_thread_ranks(8, [&](Bootstrap& bootstrap) {
    const Group group = group_over(bootstrap, {.num_nodes = 2});
    BufferRank rank(kThreads, group, {.network_path = GetParam()});
    const DispatchResult received = rank.dispatch(one);
    const Volume volume = volume_of(one.topology, group.rank(), received);
    const NetworkStatistics after_dispatch = rank.buffer.network_statistics();
    const std::uint64_t expected = direct ? volume.num_ranks : volume.num_nodes;
    require(after_dispatch.num_dispatch_rows == expected,
            "{} rows crossed the network, expected {}", after_dispatch.num_dispatch_rows, expected);
    require(after_dispatch.num_combine_rows == 0, "rows came back before the combine");
    rank.combine(one, received, {});
    const NetworkStatistics after_combine = rank.buffer.network_statistics();
    require(after_combine.num_combine_rows > 0, "no row went back");
    require(after_combine.num_dispatch_rows == expected, "a combine counts as a dispatch");
    rank.buffer.close();
  });
  for (const std::string& error : errors) EXPECT_EQ(error, "");
}

INSTANTIATE_TEST_SUITE_P(Paths, NetworkVolume,
                         ::testing::Values(NetworkPath::kHierarchical, NetworkPath::kDirect),
                         [](const auto& instance) {
                           return instance.param == NetworkPath::kDirect ? "Direct"
                                                                         : "Hierarchical";
                         });

}  // namespace
}  // namespace moelink::test
