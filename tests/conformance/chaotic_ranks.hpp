// Runs threads as ranks of a group whose networks do whatever a network may do.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "conformance/thread_ranks.hpp"
#include "transport/chaos/chaos_transport.hpp"
#include "transport/open_transport.hpp"

namespace moelink::test {

// As run_thread_ranks.
inline std::vector<std::string> run_chaotic_ranks(int num_ranks,
                                                  const std::function<void(Bootstrap&)>& body) {
  std::atomic<std::uint64_t> seed{1};
  set_transport_decorator([&seed](std::unique_ptr<Transport> inner) {
    return make_chaos_transport(std::move(inner), {.seed = ++seed});
  });
  std::vector<std::string> errors = run_thread_ranks(num_ranks, body);
  set_transport_decorator({});
  return errors;
}

}  // namespace moelink::test
