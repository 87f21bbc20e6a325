// Runs a function in several threads at once, as the ranks of a group.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bootstrap/threads/thread_bootstrap.hpp"

namespace moelink::test {

// Element i is what() of the exception that left rank i, or empty.
inline std::vector<std::string> run_thread_ranks(int num_ranks,
                                                 const std::function<void(Bootstrap&)>& body) {
  std::vector<std::string> errors(static_cast<std::size_t>(num_ranks));
  std::vector<std::unique_ptr<Bootstrap>> bootstraps = ThreadBootstrap::make(num_ranks);
  std::vector<std::thread> threads;
  for (std::size_t rank = 0; rank < errors.size(); ++rank) {
    threads.emplace_back([&errors, &body, rank, bootstrap = std::move(bootstraps[rank])] {
      try {
        body(*bootstrap);
      } catch (const std::exception& error) {
        errors[rank] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}

}  // namespace moelink::test
