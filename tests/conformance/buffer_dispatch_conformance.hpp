// What dispatch of every backend must do.
#pragma once

#include <memory>
#include <vector>

#include "conformance/buffer_fixture.hpp"

namespace moelink::test {

TEST_P(BufferConformance, DispatchCarriesEveryPayloadTypeBitForBit) {
  std::vector<BufferCase> cases;
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16, DType::kFloat32, DType::kInt8,
                            DType::kUInt8, DType::kInt32, DType::kFloat8E4M3}) {
    cases.push_back({.dtype = dtype, .num_channels = 80, .seed = cases.size() + 1});
  }
  round_trip(in_both_layouts(cases));
}

TEST_P(BufferConformance, DispatchCarriesScalesOfAnyTypeAndStrides) {
  std::vector<BufferCase> cases;
  for (const ScaleKind scales :
       {ScaleKind::kFloat32, ScaleKind::kPackedInt32, ScaleKind::kColumnMajor, ScaleKind::kBytes}) {
    cases.push_back({.dtype = DType::kFloat8E4M3, .num_channels = 896, .scales = scales});
  }
  round_trip(in_both_layouts(cases));
}

TEST_P(BufferConformance, DispatchTakesIdsOf32BitsAndCallsWithoutWeights) {
  round_trip(in_both_layouts({{.index_dtype = DType::kInt32},
                              {.weights = WeightKind::kAbsent},
                              {.index_dtype = DType::kInt32, .weights = WeightKind::kAbsent}}));
}

TEST_P(BufferConformance, DuplicateIdsAreOneCompactRowAndSeveralExpertMajorRows) {
  round_trip(in_both_layouts(
      {{.pattern = Pattern::kDuplicates}, {.experts_per_rank = 1, .num_topk = 6, .seed = 2}}));
}

TEST_P(BufferConformance, TokensThatSelectNothingAreSentNowhere) {
  round_trip(in_both_layouts({{.pattern = Pattern::kNothing}, {}}));
}

TEST_P(BufferConformance, OneRankMaySendToAllAndAllToOne) {
  round_trip(in_both_layouts({{.num_tokens = {40}, .pattern = Pattern::kOneToAll},
                              {.num_tokens = {40}, .pattern = Pattern::kAllToOne},
                              {.num_tokens = {40}, .pattern = Pattern::kOneToAll, .seed = 2}}));
}

TEST_P(BufferConformance, RanksMayHaveNoTokens) {
  round_trip(in_both_layouts({{.num_tokens = {5, 0, 9, 0}},
                              {.num_tokens = {0}},
                              {.num_tokens = {0, 0, 0, 1}},
                              {.num_tokens = {0}, .scales = ScaleKind::kFloat32}}));
}

TEST_P(BufferConformance, AnyNumberOfRanksFromOneToNineWorks) {
  for (int num_ranks = 1; num_ranks <= 9; ++num_ranks) {
    SCOPED_TRACE(num_ranks);
    round_trip(in_both_layouts({{.topology = {num_ranks, 1}, .num_tokens = {11, 3, 0, 8}}}));
  }
}

TEST_P(BufferConformance, ExpertGroupsArePaddedWithZerosToAnyAlignment) {
  std::vector<BufferCase> cases;
  for (const std::int64_t alignment : {1, 3, 16, 128}) {
    cases.push_back({.layout = Layout::kExpertMajor, .alignment = alignment});
    cases.push_back({.num_tokens = {64, 0},
                     .layout = Layout::kExpertMajor,
                     .alignment = alignment,
                     .dtype = DType::kUInt8,
                     .scales = ScaleKind::kBytes});
  }
  round_trip(cases);
}

TEST_P(BufferConformance, PaddingLeftAloneChangesNoOtherRow) {
  const BufferCase one{.layout = Layout::kExpertMajor, .alignment = 16};
  run(one.topology, [&](BufferRank& rank) {
    const Problem problem = make_problem(one);
    DispatchArguments made = rank.arguments(one, problem);
    made.config.padding = Padding::kLeave;
    const DispatchResult result = rank.buffer.dispatch(made.config);
    const ReceivedRows expected = received_rows(problem, rank.rank());
    const auto num_rows = static_cast<std::int64_t>(expected.rows.size());
    Bytes seen = rank.bytes_of("recv_x", result.recv_x, one.dtype, {num_rows, one.num_channels});
    for (std::size_t i = 0; i < expected.rows.size(); ++i) {  // forget what is in the padding
      if (expected.rows[i].source >= 0) continue;
      std::memset(&seen[i * problem.row_bytes], 0, problem.row_bytes);
    }
    require(seen == gather_rows(problem, expected.rows, &Sent::payload, problem.row_bytes),
            "recv_x differs");
    rank.combine(one, result, {});
  });
}

TEST_P(BufferConformance, ListedCountsAreRoundedUpToTheAlignment) {
  for (const Layout layout : {Layout::kCompact, Layout::kExpertMajor}) {
    const BufferCase one{.layout = layout, .alignment = 8};
    run(one.topology, [&](BufferRank& rank) {
      const DispatchResult result = rank.dispatch(one);
      std::vector<std::int64_t> expected;
      for (const std::int32_t count : received_rows(make_problem(one), rank.rank()).per_expert) {
        expected.push_back((count + 7) / 8 * 8);
      }
      require(result.num_recv_tokens_per_expert == expected, "the list differs");
    });
  }
}

TEST_P(BufferConformance, MaskOverridesTheDestinationsWithAndWithoutIds) {
  round_trip({{.mask = MaskKind::kWithTopk},
              {.mask = MaskKind::kAlone},
              {.weights = WeightKind::kAbsent, .mask = MaskKind::kWithTopk, .seed = 2},
              {.num_tokens = {0, 7}, .mask = MaskKind::kAlone},
              {.num_tokens = {0}, .mask = MaskKind::kAlone}});
}

TEST_P(BufferConformance, CachedDispatchReusesThePlacementForOtherTypesAndWidths) {
  for (const BufferCase& first : in_both_layouts({{.num_tokens = {9, 0, 20}}})) {
    run(first.topology, [&](BufferRank& rank) {
      const DispatchResult received = rank.dispatch(first);
      const BufferCase others[] = {
          {.dtype = DType::kFloat8E4M3, .num_channels = 512, .scales = ScaleKind::kColumnMajor},
          {.dtype = DType::kFloat32, .num_channels = 4},
          {.weights = WeightKind::kAbsent}};
      for (BufferCase other : others) {
        other.num_tokens = first.num_tokens;
        other.layout = first.layout;
        other.alignment = first.alignment;
        const Problem problem = make_problem(other);  // same seed and tokens, hence same ids
        const DispatchArguments made = rank.arguments(other, problem);
        DispatchResult again = rank.buffer.dispatch({.x = made.config.x,
                                                     .scales = made.config.scales,
                                                     .topk_weights = made.config.topk_weights,
                                                     .handle = received.handle});
        require(again.handle == received.handle, "the handle is another one");
        require(!again.recv_topk_idx.has_value(), "a cached dispatch returned ids");
        again.recv_topk_idx = received.recv_topk_idx;
        rank.check(other, problem, again);
      }
    });
  }
}

TEST_P(BufferConformance, WorstCaseSizesGiveSoManyRowsAndMarkTheUnusedOnes) {
  for (const BufferCase& one : in_both_layouts({{.scales = ScaleKind::kFloat32}})) {
    for (const Completion completion : {Completion::kSync, Completion::kAsync}) {
      run(one.topology, [&](BufferRank& rank) {
        const Problem problem = make_problem(one);
        DispatchArguments made = rank.arguments(one, problem);
        made.config.num_worst_tokens = 300 + rank.rank();  // may differ between ranks
        made.config.stream.completion = completion;
        const DispatchResult result = rank.buffer.dispatch(made.config);
        require(result.handle->num_recv_rows() == 300 + rank.rank(), "rows differ");
        require(result.num_recv_tokens_per_expert.empty(), "there is a list");
        const bool async = completion == Completion::kAsync;
        require(static_cast<bool>(result.event) == async, "event: {}", !async);
        rank.check(one, problem, result);
        rank.combine(one, result, {.weights = WeightKind::kGiven});
      });
    }
  }
}

TEST_P(BufferConformance, CachedDispatchKeepsWorstCaseSizes) {
  const BufferCase one{};
  run(one.topology, [&](BufferRank& rank) {
    const Problem problem = make_problem(one);
    DispatchArguments made = rank.arguments(one, problem);
    made.config.num_worst_tokens = 128;
    const DispatchResult first = rank.buffer.dispatch(made.config);
    DispatchResult again = rank.buffer.dispatch(
        {.x = made.config.x, .topk_weights = made.config.topk_weights, .handle = first.handle});
    again.recv_topk_idx = first.recv_topk_idx;
    rank.check(one, problem, again);
    rank.combine(one, again, {});
  });
}

TEST_P(BufferConformance, StatisticsAddUpWhatEachExpertReceives) {
  for (const BufferCase& one : in_both_layouts({{}})) {
    run(one.topology, [&](BufferRank& rank) {
      const Problem problem = make_problem(one);
      const std::vector<std::int32_t> start = {100, 200, 300};
      const Tensor stats = rank.put(start.data(), DType::kInt32, {3});
      DispatchArguments made = rank.arguments(one, problem);
      made.config.recv_stats = stats.view;
      for (int i = 0; i < 3; ++i) rank.buffer.dispatch(made.config);
      std::vector<std::int32_t> expected = received_rows(problem, rank.rank()).per_expert;
      for (std::size_t i = 0; i < 3; ++i) expected[i] = expected[i] * 3 + start[i];
      const Bytes seen = rank.bytes_of("recv_stats", stats, DType::kInt32, {3});
      require(std::memcmp(seen.data(), expected.data(), seen.size()) == 0, "statistics differ");
    });
  }
}

TEST_P(BufferConformance, QueryLayoutAgreesWithTheDispatchThatFollows) {
  const BufferCase one{.topology = {4, 2}};
  run(one.topology, [&](BufferRank& rank) {
    const Problem problem = make_problem(one);
    const DispatchArguments made = rank.arguments(one, problem);
    const LayoutResult layout = rank.buffer.query_layout(
        {.topk_idx = made.config.topk_idx, .num_experts = made.config.num_experts});
    std::vector<std::int32_t> of_rank(4);
    std::vector<std::int32_t> of_node(2);
    std::vector<std::int32_t> of_expert(12);
    for (std::int64_t token = 0; token < problem.of(rank.rank()).num_tokens; ++token) {
      bool in_node[2] = {false, false};
      for (int peer = 0; peer < 4; ++peer) {
        if (!problem.is_sent(rank.rank(), token, peer)) continue;
        ++of_rank[static_cast<std::size_t>(peer)];
        in_node[peer / 2] = true;
      }
      for (std::size_t node = 0; node < 2; ++node) of_node[node] += in_node[node] ? 1 : 0;
    }
    for (const std::int64_t id : problem.of(rank.rank()).ids) {
      if (id >= 0) ++of_expert[static_cast<std::size_t>(id)];
    }
    const auto same = [&](const Tensor& seen, const std::vector<std::int32_t>& expected) {
      const Bytes bytes = rank.bytes_of("counts", seen, DType::kInt32,
                                        {static_cast<std::int64_t>(expected.size())});
      return std::memcmp(bytes.data(), expected.data(), bytes.size()) == 0;
    };
    require(same(layout.num_tokens_per_rank, of_rank), "num_tokens_per_rank differs");
    require(same(layout.num_tokens_per_node, of_node), "num_tokens_per_node differs");
    require(same(layout.num_tokens_per_expert, of_expert), "num_tokens_per_expert differs");
    const DispatchResult result = rank.buffer.dispatch(made.config);
    const auto mask = [&](const Tensor& tensor) {
      return rank.bytes_of("is_token_in_rank", tensor, DType::kBool, {13, 4});
    };
    require(mask(layout.is_token_in_rank) == mask(result.handle->is_token_in_rank()),
            "is_token_in_rank differs");
  });
}

}  // namespace moelink::test
