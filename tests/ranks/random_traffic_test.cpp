// Many small random exchanges with random delays in every stage, each compared with the reference.
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "conformance/buffer_rank.hpp"
#include "conformance/heap_tensors.hpp"
#include "conformance/thread_ranks.hpp"

namespace moelink::test {
namespace {

constexpr BufferKind kThreads{"Threads", run_thread_ranks, allocate_on_heap, copy_on_heap,
                              copy_on_heap};

template <class T, std::size_t count>
T one_of(const T (&choices)[count], Random& random) {
  return choices[random.below(static_cast<int>(count))];
}

BufferCase random_case(const Topology& topology, Random& random) {
  constexpr DType kTypes[] = {DType::kBFloat16, DType::kFloat16, DType::kFloat32};
  constexpr Pattern kPatterns[] = {Pattern::kRandom,   Pattern::kRandom,   Pattern::kRandom,
                                   Pattern::kAllToOne, Pattern::kOneToAll, Pattern::kDuplicates,
                                   Pattern::kNothing};
  constexpr MaskKind kMasks[] = {MaskKind::kNone, MaskKind::kNone, MaskKind::kWithTopk};
  BufferCase one;
  one.topology = topology;
  one.experts_per_rank = 1 + random.below(4);
  one.num_topk = 1 + random.below(6);
  one.num_tokens.clear();
  for (int rank = 0; rank < topology.num_ranks; ++rank) {
    one.num_tokens.push_back(random.below(3) == 0 ? 0 : random.below(25));
  }
  one.pattern = one_of(kPatterns, random);
  one.layout = random.below(2) == 0 ? Layout::kCompact : Layout::kExpertMajor;
  one.alignment = one_of<std::int64_t, 3>({1, 4, 16}, random);
  one.dtype = one_of(kTypes, random);
  one.num_channels = 8 * (1 + random.below(6));
  one.scales = random.below(3) == 0 ? ScaleKind::kColumnMajor : ScaleKind::kNone;
  one.index_dtype = random.below(2) == 0 ? DType::kInt64 : DType::kInt32;
  one.weights = random.below(2) == 0 ? WeightKind::kGiven : WeightKind::kAbsent;
  if (one.layout == Layout::kCompact) one.mask = one_of(kMasks, random);
  one.seed = random.next();
  return one;
}

CombineOptions random_options(const BufferCase& one, Random& random) {
  CombineOptions options;
  options.dtype = one.dtype;
  options.num_channels = one.num_channels;
  options.seed = random.next();
  options.num_biases = random.below(3);
  options.weights = random.below(2) == 0 ? WeightKind::kGiven : WeightKind::kAbsent;
  options.into_out = random.below(2) == 0;
  options.stream.num_workers = random.below(3);
  if (random.below(3) == 0) options.stream.completion = Completion::kAsync;
  return options;
}

void random_round(BufferRank& rank, std::uint64_t round) {
  Random random(round);  // all ranks draw the same
  const BufferCase one = random_case(rank.buffer.group().topology(), random);
  const CombineOptions options = random_options(one, random);
  const Problem problem = make_problem(one);
  DispatchArguments made = rank.arguments(one, problem);
  if (random.below(4) == 0) made.config.num_worst_tokens = 1500;
  if (random.below(3) == 0) made.config.stream.completion = Completion::kAsync;
  const DispatchResult received = rank.buffer.dispatch(made.config);
  if (random.below(2) == 0) rank.check(one, problem, received);  // or only after the combine
  const CombineArguments given = rank.arguments(problem, received, options);
  const CombineResult combined = rank.buffer.combine(given.config);
  rank.check(problem, options, given, combined);
  rank.check(one, problem, received);
}

// Sleeps for up to 100 us in one of eight stages.
void delay(const TraceEvent&) {
  thread_local Random random(std::hash<std::thread::id>()(std::this_thread::get_id()));
  if (random.below(8) != 0) return;
  std::this_thread::sleep_for(std::chrono::microseconds(random.below(100)));
}

void run_rounds(const Topology& topology, std::uint64_t first, std::uint64_t count) {
  set_trace_hook(delay);
  const auto errors = run_thread_ranks(topology.num_ranks, [&](Bootstrap& bootstrap) {
    const Group group = group_over(bootstrap, {.num_nodes = topology.num_nodes});
    BufferRank rank(kThreads, group, {});
    for (std::uint64_t round = first; round < first + count; ++round) {
      try {
        random_round(rank, round);
      } catch (const std::exception& error) {
        throw std::runtime_error(fmt::format("round {}: {}", round, error.what()));
      }
    }
    rank.buffer.close();
  });
  set_trace_hook({});
  for (const std::string& error : errors) EXPECT_EQ(error, "");
}

TEST(RandomTraffic, OnOneNodeEqualsTheReferenceInEveryRound) { run_rounds({4, 1}, 0, 600); }

TEST(RandomTraffic, OnTwoNodesEqualsTheReferenceInEveryRound) { run_rounds({4, 2}, 1000, 300); }

TEST(RandomTraffic, OfManyRanksEqualsTheReferenceInEveryRound) { run_rounds({9, 3}, 2000, 100); }

}  // namespace
}  // namespace moelink::test
