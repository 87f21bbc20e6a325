// Runs the ranks of a buffer under test; the suites of dispatch and combine build on it.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "conformance/buffer_rank.hpp"

namespace moelink::test {

class BufferConformance : public ::testing::TestWithParam<BufferKind> {
 protected:
  void SetUp() override { wanted_nodes = GetParam().num_nodes; }
  void TearDown() override { wanted_nodes = 1; }

  using Body = std::function<void(BufferRank&)>;

  // Opens a buffer at every rank, runs `body`, and closes it.
  static void run(const Topology& on_one_node, const Body& body, BufferConfig config = {}) {
    const Topology topology = spread(on_one_node);
    config.network_path = GetParam().network_path;
    const std::vector<std::string> errors =
        GetParam().run(topology.num_ranks, [&](Bootstrap& bootstrap) {
          const Group group = group_over(bootstrap, {.num_nodes = topology.num_nodes});
          BufferRank rank(GetParam(), group, config);
          body(rank);
          rank.buffer.close();
        });
    for (std::size_t i = 0; i < errors.size(); ++i) EXPECT_EQ(errors[i], "") << "rank " << i;
  }

  // One buffer takes the cases, all of the same topology, one after another.
  static void round_trip(const std::vector<BufferCase>& cases, const BufferConfig& config = {}) {
    run(
        cases.front().topology,
        [&](BufferRank& rank) {
          for (std::size_t i = 0; i < cases.size(); ++i) {
            try {
              rank.round_trip(cases[i]);
            } catch (const Error& error) {
              throw Error(error.code(), fmt::format("case {}: {}", i, error.what()));
            } catch (const std::exception& error) {
              throw std::runtime_error(fmt::format("case {}: {}", i, error.what()));
            }
          }
        },
        config);
  }

  // The same in both layouts, the expert-major one with groups padded to 8 rows.
  static std::vector<BufferCase> in_both_layouts(std::vector<BufferCase> cases) {
    const std::size_t count = cases.size();
    for (std::size_t i = 0; i < count; ++i) {
      cases.push_back(cases[i]);
      cases.back().layout = Layout::kExpertMajor;
      cases.back().alignment = 8;
    }
    return cases;
  }
};

}  // namespace moelink::test
