// Masks set by hand after many high-throughput operations: dispatch and combine go on without them.
#include <gtest/gtest.h>

#include <chrono>
#include <set>
#include <string>
#include <vector>

#include "conformance/open_buffers.hpp"

namespace moelink::test {
namespace {

constexpr int kNumRanks = 3;
constexpr int kNumExperts = 6;  // two per rank
constexpr int kTopk = 3;
constexpr std::uint16_t kOne = 0x3f80;

struct LateMask {
  const char* name;
  Survival survival;
  Layout layout;
  int num_tokens;
  int hidden;
};

// Ones, of which token t selects experts t, t + 1 and t + 3, which lie on two or three ranks.
struct Ones {
  explicit Ones(const LateMask& shape)
      : x(make_host_tensor(DType::kBFloat16, {shape.num_tokens, shape.hidden})),
        topk(make_host_tensor(DType::kInt64, {shape.num_tokens, kTopk})) {
    for (std::int64_t i = 0; i < x.view.num_elements(); ++i) x.view.as<std::uint16_t>()[i] = kOne;
    for (int token = 0; token < shape.num_tokens; ++token) {
      for (int k = 0; k < kTopk; ++k) id(token, k) = (token + k + k / 2) % kNumExperts;
    }
    config.x = x.view;
    config.topk_idx = topk.view;
    config.num_experts = kNumExperts;
    config.layout = shape.layout;
  }

  std::int64_t& id(int token, int k) { return topk.view.as<std::int64_t>()[token * kTopk + k]; }

  // What the experts of the first `num_ranks` ranks return for a token.
  std::uint16_t sum(int token, int num_ranks) {
    std::multiset<std::int64_t> owners;
    for (int k = 0; k < kTopk; ++k) {
      const std::int64_t owner = id(token, k) * kNumRanks / kNumExperts;
      const bool repeats = config.layout == Layout::kCompact && owners.contains(owner);
      if (owner < num_ranks && !repeats) owners.insert(owner);
    }
    constexpr std::uint16_t kSums[] = {0, kOne, 0x4000, 0x4040};  // 0, 1, 2, 3
    return kSums[owners.size()];
  }

  Tensor x;
  Tensor topk;
  DispatchConfig config;
};

void require(bool holds, const std::string& what) {
  if (!holds) throw Error(ErrorCode::kInternal, what);
}

void check_combine(Buffer& buffer, const DispatchResult& received, Ones& ones, int num_ranks) {
  const Tensor combined =
      buffer.combine({.x = received.recv_x.view, .handle = received.handle}).combined_x;
  const std::int64_t hidden = combined.view.shape[1];
  for (int token = 0; token < combined.view.shape[0]; ++token) {
    for (std::int64_t i : {std::int64_t{0}, hidden - 1}) {
      require(combined.view.as<std::uint16_t>()[token * hidden + i] == ones.sum(token, num_ranks),
              "token " + std::to_string(token) + " has another sum");
    }
  }
}

// A dispatch with the handle of a time when rank 2 took part: its rows are zeros now.
void check_cached_dispatch(Buffer& buffer, const DispatchResult& before, Ones& ones) {
  const Tensor again = buffer.dispatch({.x = ones.x.view, .handle = before.handle}).recv_x;
  const std::int64_t hidden = again.view.shape[1];
  std::int64_t num_ones = 0;
  for (std::int64_t row = 0; row < again.view.shape[0]; ++row) {
    const std::uint16_t seen = again.view.as<std::uint16_t>()[row * hidden + hidden - 1];
    require(seen == kOne || seen == 0, "a row of another rank");
    num_ones += seen == kOne ? 1 : 0;
  }
  require(num_ones * kNumRanks == again.view.shape[0] * 2, "expected two thirds of the rows");
}

class LateMasks : public ::testing::TestWithParam<LateMask> {
 protected:
  void leave_out_last_rank(Buffer& buffer, const DispatchResult& before, Ones& ones) {
    buffer.mask_rank(Rank(2));
    for (int round = 0; round < 3; ++round) {
      check_combine(buffer, before, ones, 2);
      check_cached_dispatch(buffer, before, ones);
      const DispatchResult received = buffer.dispatch(ones.config);
      const Tensor prefix = received.handle->rank_prefix_matrix();
      const auto* const until = prefix.view.as<std::int32_t>() + buffer.group().rank().value();
      require(until[kNumRanks] == until[2 * kNumRanks], "expected no rows of rank 2");
      check_combine(buffer, received, ones, 2);
      buffer.barrier();
    }
  }
};

TEST_P(LateMasks, SetByHandDropOutOfDispatchAndCombine) {
  std::vector<Buffer> buffers = open_buffers(kNumRanks, {.survival = GetParam().survival});
  expect_success(on_all_ranks(kNumRanks, [&](int rank) {
    Buffer& buffer = buffers[static_cast<std::size_t>(rank)];
    Ones ones(GetParam());
    for (int round = 0; round < 4; ++round) {
      check_combine(buffer, buffer.dispatch(ones.config), ones, kNumRanks);
    }
    const DispatchResult before = buffer.dispatch(ones.config);
    if (rank != 2) leave_out_last_rank(buffer, before, ones);
  }));
}

// The last one has more rows than fit into one chunk of a staging area.
INSTANTIATE_TEST_SUITE_P(
    Everywhere, LateMasks,
    ::testing::Values(LateMask{"compact", Survival::kRaise, Layout::kCompact, 42, 64},
                      LateMask{"expert_major", Survival::kRaise, Layout::kExpertMajor, 42, 64},
                      LateMask{"masking_compact", Survival::kMask, Layout::kCompact, 42, 64},
                      LateMask{"masking_expert_major", Survival::kMask, Layout::kExpertMajor, 42,
                               64},
                      LateMask{"large", Survival::kMask, Layout::kCompact, 3000, 1024}),
    [](const auto& instance) { return instance.param.name; });

// One rank masks another, which still takes part: the third learns of it, and the masked one is
// alone afterwards.
TEST(LateMask, OfOneRankSpreadsToTheOthersAndCanBeTakenBack) {
  std::vector<Buffer> buffers =
      open_buffers(kNumRanks, {.timeout = std::chrono::seconds(1), .survival = Survival::kMask});
  const auto buffer = [&](int rank) -> Buffer& { return buffers[static_cast<std::size_t>(rank)]; };
  expect_success(on_all_ranks(kNumRanks, [&](int rank) {
    for (int i = 0; i < 3; ++i) use_once(buffer(rank));
    if (rank == 0) buffer(rank).mask_rank(Rank(2));
    use_once(buffer(rank));
  }));
  EXPECT_TRUE(buffer(1).is_masked(Rank(2)));
  EXPECT_FALSE(buffer(1).is_masked(Rank(0)));
  EXPECT_FALSE(buffer(0).is_masked(Rank(1)));
  EXPECT_TRUE(buffer(2).is_masked(Rank(0)));
  expect_success(on_all_ranks(kNumRanks, [&](int rank) {
    for (int peer = 0; peer < kNumRanks; ++peer) {
      if (peer != rank) buffer(rank).unmask_rank(Rank(peer));
    }
    buffer(rank).clean_low_latency();
    use_once(buffer(rank));
  }));
  EXPECT_FALSE(buffer(1).is_masked(Rank(2)));
  EXPECT_FALSE(buffer(2).is_masked(Rank(0)));
}

}  // namespace
}  // namespace moelink::test
