// The ranks of one node as a group of their own.
#pragma once

#include <iterator>
#include <string>
#include <vector>

#include "bootstrap/bootstrap.hpp"
#include "moelink/topology.hpp"

namespace moelink {

// Ranks are numbered inside the node. All nodes exchange at the same time: every rank of `whole`
// must make the same calls, each on the part that is its own.
class NodeBootstrap final : public Bootstrap {
 public:
  NodeBootstrap(Bootstrap& whole, const Topology& topology) : whole_(whole), topology_(topology) {}

  Rank rank() const override { return Rank(topology_.local_rank_of(whole_.rank()).value()); }
  int num_ranks() const override { return topology_.ranks_per_node(); }
  std::vector<std::string> all_gather(const std::string& blob, const char* what,
                                      const Deadline& deadline) override {
    return own_part(whole_.all_gather(blob, what, deadline));
  }
  Bootstrap& whole() override { return whole_; }
  std::vector<std::string> own_part(std::vector<std::string> blobs) const override {
    const Node node = topology_.node_of(whole_.rank());
    const auto first = blobs.begin() + topology_.rank_at(node, LocalRank(0)).value();
    return {std::make_move_iterator(first),
            std::make_move_iterator(first + topology_.ranks_per_node())};
  }

 private:
  Bootstrap& whole_;
  Topology topology_;
};

}  // namespace moelink
