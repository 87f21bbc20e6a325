// Buffers of several ranks in one process, for tests that call them from one thread or from many.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "conformance/outcomes.hpp"
#include "moelink/moelink.hpp"

namespace moelink::test {

// Runs `call` for every rank on a thread of its own.
inline std::vector<Outcome> on_all_ranks(int num_ranks, const std::function<void(int rank)>& call) {
  std::vector<Outcome> outcomes(static_cast<std::size_t>(num_ranks));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < num_ranks; ++rank) {
    threads.emplace_back(
        [&, rank] { outcomes[static_cast<std::size_t>(rank)] = outcome_of([&] { call(rank); }); });
  }
  for (std::thread& thread : threads) thread.join();
  return outcomes;
}

inline std::vector<Buffer> open_buffers(const std::vector<Group>& groups,
                                        const BufferConfig& config = {}) {
  std::vector<std::optional<Buffer>> made(groups.size());
  on_all_ranks(static_cast<int>(groups.size()), [&](int rank) {
    const auto index = static_cast<std::size_t>(rank);
    made[index].emplace(groups[index], config);
  });
  std::vector<Buffer> buffers;
  for (std::optional<Buffer>& buffer : made) buffers.push_back(std::move(buffer.value()));
  return buffers;
}

inline std::vector<Buffer> open_buffers(int num_ranks, const BufferConfig& config = {}) {
  return open_buffers(Group::of_threads(num_ranks), config);
}

inline void expect_success(const std::vector<Outcome>& outcomes) {
  for (std::size_t rank = 0; rank < outcomes.size(); ++rank) {
    EXPECT_FALSE(outcomes[rank].code.has_value()) << "rank " << rank << ": " << outcomes[rank].text;
  }
}

inline void expect_failure(const Outcome& outcome, ErrorCode code,
                           const std::vector<std::string>& words) {
  ASSERT_TRUE(outcome.code.has_value()) << "nothing was thrown; expected: " << words.front();
  EXPECT_EQ(*outcome.code, code) << outcome.text;
  for (const std::string& word : words) {
    EXPECT_NE(outcome.text.find(word), std::string::npos)
        << "'" << word << "' is not in: " << outcome.text;
  }
}

// A small valid dispatch: 5 tokens of 64 bfloat16, top-2 of 2 experts per rank.
struct SmallCall {
  explicit SmallCall(int num_ranks) {
    config.num_experts = 2 * num_ranks;
    for (int i = 0; i < 10; ++i) topk.view.as<std::int64_t>()[i] = i % config.num_experts;
    for (int i = 0; i < 320; ++i) x.view.as<std::uint16_t>()[i] = 0x3f80;  // 1.0
    config.x = x.view;
    config.topk_idx = topk.view;
    config.topk_weights = weights.view;
  }

  Tensor x = make_host_tensor(DType::kBFloat16, {5, 64});
  Tensor topk = make_host_tensor(DType::kInt64, {5, 2});
  Tensor weights = make_host_tensor(DType::kFloat32, {5, 2});
  DispatchConfig config;
};

// Dispatches and combines all ones; throws if the sums are wrong.
inline void use_once(Buffer& buffer) {
  const SmallCall call(buffer.group().num_ranks());
  const DispatchResult received = buffer.dispatch(call.config);
  const CombineResult result =
      buffer.combine({.x = received.recv_x.view, .handle = received.handle});
  const auto* in_rank = received.handle->is_token_in_rank().view.as<std::uint8_t>();
  for (std::int64_t token = 0; token < 5; ++token) {
    int copies = 0;
    for (int rank = 0; rank < buffer.group().num_ranks(); ++rank) copies += *in_rank++;
    constexpr std::uint16_t kSums[] = {0, 0x3f80, 0x4000};  // 0.0, 1.0, 2.0
    const std::uint16_t seen = result.combined_x.view.as<std::uint16_t>()[token * 64 + 63];
    if (seen != kSums[copies]) throw std::runtime_error("a sum is wrong");
  }
}

inline void expect_usable(std::vector<Buffer>& buffers) {
  expect_success(on_all_ranks(static_cast<int>(buffers.size()), [&](int rank) {
    use_once(buffers[static_cast<std::size_t>(rank)]);
  }));
}

}  // namespace moelink::test
