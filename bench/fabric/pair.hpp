// Processes joined by sockets, two by two.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/unique_fd.hpp"

namespace moelink::bench {

class Pair {
 public:
  Pair(int rank, UniqueFd socket) : rank_(rank), socket_(std::move(socket)) {}

  int rank() const { return rank_; }
  // Both texts, in rank order. Collective.
  std::vector<std::string> exchange(const std::string& own);
  void meet() { exchange(std::string()); }

 private:
  int rank_;
  UniqueFd socket_;
};

// Runs `body` in two new processes; returns what rank 0 returned. Throws std::runtime_error if one
// of them fails.
std::string run_pair(const std::function<std::string(Pair&)>& body);

// Runs `body` in 2 * num_pairs new processes; returns what number 0 returned, throws as run_pair.
// Processes i and i + num_pairs are a pair. `number`: of the process.
std::string run_pairs(int num_pairs,
                      const std::function<std::string(Pair& pair, int number)>& body);

}  // namespace moelink::bench
