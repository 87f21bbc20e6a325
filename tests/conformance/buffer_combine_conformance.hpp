// What combine of every backend must do.
#pragma once

#include <vector>

#include "conformance/buffer_fixture.hpp"

namespace moelink::test {

using Place = CombineOptions::Place;

TEST_P(BufferConformance, CombineAddsBiasesFirstInEveryTypeAndLayout) {
  for (const BufferCase& one : in_both_layouts({{.num_tokens = {13, 0, 6}}})) {
    run(one.topology, [&](BufferRank& rank) {
      const DispatchResult received = rank.dispatch(one);
      for (const DType dtype : {DType::kBFloat16, DType::kFloat16, DType::kFloat32}) {
        for (int num_biases = 0; num_biases <= 2; ++num_biases) {
          rank.combine(one, received,
                       {.dtype = dtype, .num_channels = 72, .num_biases = num_biases});
        }
      }
    });
  }
}

TEST_P(BufferConformance, CombineReturnsTopkWeightsInBothLayouts) {
  for (const BufferCase& one :
       in_both_layouts({{}, {.pattern = Pattern::kDuplicates}, {.num_tokens = {0, 5}}})) {
    run(one.topology, [&](BufferRank& rank) {
      rank.combine(one, rank.dispatch(one), {.weights = WeightKind::kGiven});
    });
  }
}

TEST_P(BufferConformance, CombineOfTokensSentNowhereIsTheBiasOrZero) {
  const BufferCase one{.pattern = Pattern::kNothing};
  run(one.topology, [&](BufferRank& rank) {
    const DispatchResult received = rank.dispatch(one);
    rank.combine(one, received, {});
    rank.combine(one, received, {.num_biases = 2, .weights = WeightKind::kGiven});
  });
}

TEST_P(BufferConformance, CombineWritesIntoOutWhenItIsGiven) {
  for (const Place place : {Place::kHeap, Place::kSymmetric}) {
    const BufferCase one{};
    run(one.topology, [&](BufferRank& rank) {
      rank.combine(one, rank.dispatch(one), {.place = place, .num_biases = 1, .into_out = true});
    });
  }
}

// Enough rows that every rank returns several MiB.
inline BufferCase large_case(Layout layout) {
  return {.experts_per_rank = 2,
          .num_topk = 3,
          .num_tokens = {500, 431, 0, 617},
          .layout = layout,
          .dtype = DType::kFloat32,
          .num_channels = 1024};
}

TEST_P(BufferConformance, LargeCombineFromForeignMemoryEqualsTheReference) {
  if (GetParam().through_host) GTEST_SKIP() << "statistics are of the host's side";
  for (const Layout layout : {Layout::kCompact, Layout::kExpertMajor}) {
    const BufferCase one = large_case(layout);
    run(one.topology, [&](BufferRank& rank) {
      const DispatchResult received = rank.dispatch(one);
      rank.combine(one, received,
                   {.dtype = one.dtype,
                    .num_channels = one.num_channels,
                    .num_biases = 1,
                    .weights = WeightKind::kGiven});
      require(rank.buffer.memory_statistics().num_staged_combines == 1, "nothing was staged");
    });
  }
}

TEST_P(BufferConformance, LargeCombineInSymmetricMemoryIsReadInPlace) {
  for (const Layout layout : {Layout::kCompact, Layout::kExpertMajor}) {
    const BufferCase one = large_case(layout);
    run(one.topology, [&](BufferRank& rank) {
      const DispatchResult received = rank.dispatch(one);
      rank.combine(one, received,
                   {.dtype = one.dtype,
                    .num_channels = one.num_channels,
                    .place = Place::kSymmetric,
                    .into_out = true});
      require(rank.buffer.memory_statistics().num_staged_combines == 0, "a combine was staged");
    });
  }
}

TEST_P(BufferConformance, SomeRanksMayReturnRowsInPlaceAndOthersStaged) {
  for (const Layout layout : {Layout::kCompact, Layout::kExpertMajor}) {
    const BufferCase one = large_case(layout);
    run(one.topology, [&](BufferRank& rank) {
      const DispatchResult received = rank.dispatch(one);
      const Place place = rank.rank() % 2 == 0 ? Place::kSymmetric : Place::kHeap;
      for (int i = 0; i < 2; ++i) {
        rank.combine(one, received,
                     {.dtype = one.dtype, .num_channels = one.num_channels, .place = place});
      }
    });
  }
}

TEST_P(BufferConformance, ReceivedRowsMayBeReturnedAsTheyAre) {
  const BufferCase one{
      .topology = {3, 1}, .num_tokens = {900}, .dtype = DType::kFloat32, .num_channels = 256};
  run(one.topology, [&](BufferRank& rank) {
    const Problem problem = make_problem(one);
    const Sent& sent = problem.of(rank.rank());
    Bytes numbers(sent.payload.size());
    fill_numbers(numbers.data(), one.dtype, numbers.size() / 4, Random(5));
    DispatchArguments made = rank.arguments(one, problem);
    made.x = rank.put(numbers.data(), one.dtype, {sent.num_tokens, one.num_channels});
    made.config.x = made.x.view;
    const DispatchResult received = rank.buffer.dispatch(made.config);
    const CombineResult result =
        rank.buffer.combine({.x = received.recv_x.view, .handle = received.handle});
    Bytes expected(numbers.size());
    for (std::int64_t i = 0; i < sent.num_tokens * one.num_channels; ++i) {
      const auto at = static_cast<std::size_t>(i);
      float sum = 0.0F;
      for (int peer = 0; peer < 3; ++peer) {
        const bool counts = problem.is_sent(rank.rank(), i / one.num_channels, peer);
        if (counts) sum += load_element(numbers.data(), one.dtype, at);
      }
      store_element(expected.data(), one.dtype, at, sum);
    }
    require(rank.bytes_of("combined_x", result.combined_x, one.dtype,
                          {sent.num_tokens, one.num_channels}) == expected,
            "combined_x differs");
    require(rank.buffer.memory_statistics().num_staged_combines == 0, "recv_x was staged");
  });
}

// Rows wide enough that each rank returns more than stays staged as a small tensor.
inline void combine_on_nodes(BufferRank& rank, const BufferCase& one) {
  const DispatchResult received = rank.dispatch(one);
  for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
    for (const Place place : {Place::kHeap, Place::kSymmetric}) {
      rank.combine(one, received,
                   {.dtype = dtype,
                    .num_channels = 4096,
                    .place = place,
                    .num_biases = 2,
                    .weights = WeightKind::kGiven});
    }
  }
}

TEST_P(BufferConformance, SeveralNodesRoundTheSumOfEachNode) {
  for (const Topology& topology : {Topology{4, 2}, Topology{8, 2}, Topology{4, 4}}) {
    for (const BufferCase& one :
         in_both_layouts({{.topology = topology, .num_topk = 6, .num_tokens = {17, 3}}})) {
      run(topology, [&](BufferRank& rank) { combine_on_nodes(rank, one); });
    }
  }
}

TEST_P(BufferConformance, HandleServesManyCombinesAndCachedDispatchesInAnyOrder) {
  const BufferCase one{.layout = Layout::kExpertMajor, .alignment = 4};
  const BufferCase other{.num_tokens = {3, 30}, .seed = 2};
  run(one.topology, [&](BufferRank& rank) {
    const DispatchResult first = rank.dispatch(one);
    const DispatchResult second = rank.dispatch(other);
    for (std::uint64_t i = 0; i < 10; ++i) {
      rank.combine(one, first, {.seed = i});
      const Problem problem = make_problem(other);
      const DispatchArguments made = rank.arguments(other, problem);
      const DispatchResult again =
          rank.buffer.dispatch({.x = made.config.x, .handle = second.handle});
      rank.combine(other, again, {.seed = i + 100});
    }
  });
}

TEST_P(BufferConformance, RepeatsAreEqualBitForBitWhateverTheNumberOfWorkers) {
  const BufferCase one{.topology = {3, 1}, .num_topk = 6, .num_tokens = {50}};
  run(one.topology, [&](BufferRank& rank) {
    for (int i = 0; i < 20; ++i) {  // each repeat equals the same reference
      StreamOptions stream;
      stream.num_workers = 1 + i % 4;
      const DispatchResult received = rank.dispatch(one, stream);
      rank.combine(one, received, {.num_biases = 1, .stream = stream});
    }
  });
}

}  // namespace moelink::test
