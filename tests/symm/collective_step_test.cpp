// Steps that fail at one rank fail at all of them.
#include "symm/collective_step.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

#include "base/check.hpp"
#include "conformance/thread_ranks.hpp"

namespace moelink {
namespace {

using test::run_thread_ranks;

using Texts = std::vector<std::string>;

Deadline soon() { return Deadline::after(std::chrono::seconds(20)); }

TEST(CollectiveStep, ReturnsWhatEachRankReturned) {
  const auto errors = run_thread_ranks(3, [](Bootstrap& bootstrap) {
    const auto results = collective_step(
        bootstrap, "step", soon(), [&] { return std::string(bootstrap.rank().index(), 'x'); });
    EXPECT_EQ(results, (std::vector<std::string>{"", "x", "xx"}));
  });
  EXPECT_EQ(errors, Texts(3));
}

TEST(CollectiveStep, ThrowsTheLowestFailingRanksErrorEverywhere) {
  const auto errors = run_thread_ranks(4, [](Bootstrap& bootstrap) {
    collective_step(bootstrap, "step", soon(), [&]() -> std::string {
      if (bootstrap.rank() == Rank(0)) return "fine";
      fail(ErrorCode::kUnsupported, "no luck here: {}", bootstrap.rank().value());
    });
  });
  EXPECT_EQ(errors, Texts(4, "unsupported: step: rank 1: no luck here: 1"));
}

TEST(CollectiveStep, PrefersARanksOwnReasonToThatOfRanksThatMissIt) {
  const auto errors = run_thread_ranks(3, [](Bootstrap& bootstrap) {
    collective_step(bootstrap, "step", soon(), [&]() -> std::string {
      if (bootstrap.rank() == Rank(2)) fail(ErrorCode::kSystem, "disk on fire");
      fail(ErrorCode::kPeerLost, "rank 2 has gone");
    });
  });
  EXPECT_EQ(errors, Texts(3, "system error: step: rank 2: disk on fire"));
}

TEST(CollectiveStep, TurnsOtherExceptionsIntoSystemErrors) {
  const auto errors = run_thread_ranks(2, [](Bootstrap& bootstrap) {
    collective_step(bootstrap, "step", soon(), [&]() -> std::string {
      if (bootstrap.rank() == Rank(1)) throw std::runtime_error("odd");
      return {};
    });
  });
  EXPECT_EQ(errors, Texts(2, "system error: step: rank 1: odd"));
}

TEST(CollectiveStep, KeepsItsOwnReasonWhenThePeersHaveGone) {
  const auto errors = run_thread_ranks(2, [](Bootstrap& bootstrap) {
    if (bootstrap.rank() == Rank(1)) return;
    collective_step(bootstrap, "step", soon(),
                    []() -> std::string { fail(ErrorCode::kSystem, "disk on fire"); });
  });
  EXPECT_EQ(errors[0], "system error: step: rank 0: disk on fire");
}

}  // namespace
}  // namespace moelink
