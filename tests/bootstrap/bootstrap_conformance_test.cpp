// The bootstraps that join the conformance suite.
#include "conformance/bootstrap_conformance.hpp"

#include <utility>

#include "bootstrap/callback/callback_bootstrap.hpp"
#include "bootstrap/tcp_world.hpp"
#include "bootstrap/threads/thread_bootstrap.hpp"

namespace moelink::test {
namespace {

struct ThreadWorld {
  static Bootstraps make(int num_ranks) { return ThreadBootstrap::make(num_ranks); }
};

// The user's all-gather is that of threads; its own errors must come through.
struct CallbackWorld {
  static Bootstraps make(int num_ranks) {
    Bootstraps bootstraps;
    for (auto& inner : ThreadBootstrap::make(num_ranks)) {
      const Rank rank = inner->rank();
      const std::shared_ptr<Bootstrap> shared = std::move(inner);
      bootstraps.push_back(std::make_unique<CallbackBootstrap>(
          rank, num_ranks,
          [shared](const std::string& blob) { return gather(*shared, blob, 10 * kShortWait); }));
    }
    return bootstraps;
  }
};

struct TcpWorld {
  static Bootstraps make(int num_ranks) {
    if (num_ranks > 1) return Rendezvous(num_ranks).complete();
    Bootstraps bootstraps;
    bootstraps.push_back(open_tcp_bootstrap(RendezvousConfig{}, Deadline::after(kLongWait)));
    return bootstraps;
  }
};

using Worlds = testing::Types<CallbackWorld, ThreadWorld, TcpWorld>;
class WorldNames {
 public:
  template <class World>
  static std::string GetName(int) {
    if (std::is_same_v<World, CallbackWorld>) return "callback";
    return std::is_same_v<World, ThreadWorld> ? "threads" : "tcp";
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Bootstrap, BootstrapConformance, Worlds, WorldNames);

// What a callback cannot know: which collective the others are in.
void expect_mismatch_named(Bootstraps bootstraps) {
  const auto results = run_ranks(bootstraps, [](std::unique_ptr<Bootstrap>& bootstrap) {
    const bool other = bootstrap->rank() == Rank(1);
    bootstrap->all_gather("", other ? "barrier" : kWhat, Deadline::after(kLongWait));
  });
  for (const RankResult& result : results) {
    expect_error(result, ErrorCode::kInvalidArgument, {"rank 1", "'barrier'", kWhat});
  }
}

TEST(ThreadBootstrap, NamesBothCollectivesWhenRanksDisagree) {
  expect_mismatch_named(ThreadWorld::make(3));
}

TEST(TcpBootstrap, NamesBothCollectivesWhenRanksDisagree) {
  expect_mismatch_named(TcpWorld::make(3));
}

}  // namespace
}  // namespace moelink::test
