// Renumbers the ranks of a node.
#include "symm/node_memory.hpp"

#include <utility>

#include "bootstrap/node_bootstrap.hpp"

namespace moelink {
namespace {

class NodeMemory final : public SymmetricMemory {
 public:
  NodeMemory(Rank rank, const Topology& topology, std::shared_ptr<SymmetricMemory> memory)
      : rank_(rank), topology_(topology), memory_(std::move(memory)) {}

  Rank rank() const override { return rank_; }
  int num_ranks() const override { return topology_.num_ranks; }
  std::size_t size_bytes() const override { return memory_->size_bytes(); }
  std::byte* region(Rank rank) const override {
    return is_near(rank) ? memory_->region(inside(rank)) : nullptr;
  }
  bool peer_alive(Rank rank) const override {
    return !is_near(rank) || memory_->peer_alive(inside(rank));
  }
  void announce_departure() override { memory_->announce_departure(); }
  void discard(std::size_t offset, std::size_t bytes) override { memory_->discard(offset, bytes); }
  const char* kind() const override { return memory_->kind(); }

 private:
  bool is_near(Rank rank) const { return topology_.node_of(rank) == topology_.node_of(rank_); }
  Rank inside(Rank rank) const { return Rank(topology_.local_rank_of(rank).value()); }

  Rank rank_;
  Topology topology_;
  std::shared_ptr<SymmetricMemory> memory_;
};

}  // namespace

std::shared_ptr<SymmetricMemory> open_node_memory(Bootstrap& bootstrap, const Topology& topology,
                                                  std::size_t size_bytes,
                                                  const Deadline& deadline) {
  if (topology.num_nodes == 1) return open_symmetric_memory(bootstrap, size_bytes, deadline);
  NodeBootstrap node(bootstrap, topology);
  return std::make_shared<NodeMemory>(bootstrap.rank(), topology,
                                      open_symmetric_memory(node, size_bytes, deadline));
}

}  // namespace moelink
