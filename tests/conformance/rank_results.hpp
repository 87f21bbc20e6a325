// Runs collectives on several ranks at once and looks at how each of them ended.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <regex>
#include <string>
#include <thread>
#include <vector>

#include "base/deadline.hpp"
#include "bootstrap/bootstrap.hpp"
#include "moelink/errors.hpp"

namespace moelink::test {

using Bootstraps = std::vector<std::unique_ptr<Bootstrap>>;

// Name of the collectives in these tests: errors must contain it.
inline constexpr const char* kWhat = "exchange of handles";
// Long enough that only a hang can reach it, and short where a test waits for it.
inline constexpr std::chrono::milliseconds kLongWait{50'000};
inline constexpr std::chrono::milliseconds kShortWait{500};

struct RankResult {
  std::optional<ErrorCode> code;  // of the Error that left the rank
  std::string message;
};

inline RankResult run_rank(const std::function<void()>& body) {
  try {
    body();
    return {};
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
}

// Runs `body` for each rank on a thread of its own; it may destroy the bootstrap that it gets.
inline std::vector<RankResult> run_ranks(
    Bootstraps& bootstraps, const std::function<void(std::unique_ptr<Bootstrap>&)>& body) {
  std::vector<RankResult> results(bootstraps.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < bootstraps.size(); ++i) {
    threads.emplace_back([&, i] { results[i] = run_rank([&] { body(bootstraps[i]); }); });
  }
  for (std::thread& thread : threads) thread.join();
  return results;
}

inline void expect_all_succeeded(const std::vector<RankResult>& results) {
  for (std::size_t i = 0; i < results.size(); ++i) {
    EXPECT_FALSE(results[i].code.has_value()) << "rank " << i << ": " << results[i].message;
  }
}

inline void expect_error(const RankResult& result, ErrorCode code,
                         const std::vector<std::string>& parts) {
  ASSERT_TRUE(result.code.has_value()) << "no error";
  EXPECT_EQ(*result.code, code) << result.message;
  for (const std::string& part : parts) {
    EXPECT_NE(result.message.find(part), std::string::npos)
        << "'" << part << "' is not in: " << result.message;
  }
}

// "rank 2", or "ranks 1, 2" on a machine so busy that another rank is late as well.
inline bool names_rank(const std::string& message, std::size_t rank) {
  const std::regex pattern("ranks? ([0-9]+, )*" + std::to_string(rank) + "\\b");
  return std::regex_search(message, pattern);
}

// All but `absent` must have failed in the same way, naming it and the collective.
inline void expect_others_failed(const std::vector<RankResult>& results, std::size_t absent,
                                 ErrorCode code) {
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (i == absent) continue;
    SCOPED_TRACE("rank " + std::to_string(i));
    expect_error(results[i], code, {kWhat});
    EXPECT_TRUE(names_rank(results[i].message, absent)) << results[i].message;
  }
}

inline std::string blob_of(Rank rank, std::size_t num_bytes, int round = 0) {
  std::string blob(num_bytes, '\0');
  for (std::size_t i = 0; i < num_bytes; ++i) {
    blob[i] = static_cast<char>(rank.index() * 31 + i * 7 + static_cast<std::size_t>(round));
  }
  return blob;
}

inline std::vector<std::string> gather(Bootstrap& bootstrap, const std::string& blob,
                                       std::chrono::milliseconds wait = kLongWait) {
  return bootstrap.all_gather(blob, kWhat, Deadline::after(wait));
}

}  // namespace moelink::test
