// CallbackBootstrap: what it accepts from the user's all-gather.
#include "bootstrap/callback/callback_bootstrap.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

#include "conformance/rank_results.hpp"

namespace moelink::test {
namespace {

RankResult gather_through(AllGather callback) {
  return run_rank([&] {
    CallbackBootstrap bootstrap(Rank(1), 3, std::move(callback));
    gather(bootstrap, "own");
  });
}

TEST(CallbackBootstrap, ReturnsTheBlobsOfTheCallback) {
  CallbackBootstrap bootstrap(Rank(1), 3, [](const std::string& blob) {
    return std::vector<std::string>{"zero", blob, "two"};
  });
  EXPECT_EQ(gather(bootstrap, "own"), (std::vector<std::string>{"zero", "own", "two"}));
}

TEST(CallbackBootstrap, RefusesAnotherNumberOfBlobs) {
  expect_error(gather_through(
                   [](const std::string& blob) { return std::vector<std::string>{"zero", blob}; }),
               ErrorCode::kInvalidArgument, {"rank 1", kWhat, "2 blobs", "expected 3"});
}

TEST(CallbackBootstrap, RefusesBlobsInAnotherOrder) {
  expect_error(gather_through([](const std::string& blob) {
                 return std::vector<std::string>{blob, "zero", "two"};
               }),
               ErrorCode::kInvalidArgument, {"rank 1", kWhat, "entry 1", "rank order"});
}

TEST(CallbackBootstrap, LetsExceptionsOfTheCallbackThrough) {
  CallbackBootstrap bootstrap(Rank(0), 1, [](const std::string&) -> std::vector<std::string> {
    throw std::out_of_range("the user's own");
  });
  EXPECT_THROW(gather(bootstrap, "own"), std::out_of_range);
}

TEST(CallbackBootstrap, RefusesAnEmptyFunctionAndRanksOutOfRange) {
  expect_error(gather_through(nullptr), ErrorCode::kInvalidArgument, {"all_gather"});
  const AllGather any = [](const std::string& blob) { return std::vector<std::string>{blob}; };
  for (const int rank : {-1, 3}) {
    expect_error(run_rank([&] { CallbackBootstrap(Rank(rank), 3, any); }),
                 ErrorCode::kInvalidArgument, {"rank is " + std::to_string(rank)});
  }
  expect_error(run_rank([&] { CallbackBootstrap(Rank(0), 0, any); }), ErrorCode::kInvalidArgument,
               {"num_ranks is 0"});
}

}  // namespace
}  // namespace moelink::test
