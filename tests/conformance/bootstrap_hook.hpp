// A bootstrap that does something extra after chosen collectives of another one.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bootstrap/bootstrap.hpp"

namespace moelink::test {

class BootstrapHook final : public Bootstrap {
 public:
  // Receives the name of a collective that has just completed, and its result.
  using After = std::function<void(const std::string& what, const std::vector<std::string>& blobs)>;

  BootstrapHook(Bootstrap& inner, After after) : inner_(inner), after_(std::move(after)) {}

  Rank rank() const override { return inner_.rank(); }
  int num_ranks() const override { return inner_.num_ranks(); }

  std::vector<std::string> all_gather(const std::string& blob, const char* what,
                                      const Deadline& deadline) override {
    std::vector<std::string> blobs = inner_.all_gather(blob, what, deadline);
    after_(what, blobs);
    return blobs;
  }

 private:
  Bootstrap& inner_;
  After after_;
};

}  // namespace moelink::test
