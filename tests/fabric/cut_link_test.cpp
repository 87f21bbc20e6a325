// A host whose link is cut: whoever waits for it, or sends to it, is told so, and nobody hangs.
#include <gtest/gtest.h>

#include <chrono>
#include <ostream>

#include "conformance/outcomes.hpp"
#include "fabric/host_ranks.hpp"

namespace moelink::test {
namespace {

using std::chrono::seconds;

using Clock = std::chrono::steady_clock;

constexpr int kNumRanks = 3;
constexpr std::size_t kPutBytes = 64 * 1024;
constexpr std::size_t kHalfBytes = kNumRanks * kPutBytes;
constexpr seconds kPatience{2};
// What a wait may take beyond its deadline on a busy machine.
constexpr seconds kGrace{15};

// When the link is cut, and whose.
struct Cut {
  const char* name;
  int host;
  std::uint64_t after_rounds;  // 0: before any connection exists
};

void PrintTo(const Cut& cut, std::ostream* out) { *out << cut.name; }

void cut_own_link() { run_command("ip link set eth0 down"); }

// An endless stream of rounds, in each of which all put to all and wait, for the cut rank first:
// the others stop as well once they have noticed. `begin` is when the last round began.
[[noreturn]] void stream(TransportRank& rank, const Cut& cut, Clock::time_point& begin) {
  const Rank victim(cut.host);
  for (std::uint64_t round = 1;; ++round) {
    if (rank.rank() == victim && round == cut.after_rounds + 1) cut_own_link();
    begin = Clock::now();
    const Deadline deadline = Deadline::after(kPatience);
    for (int step = 0; step < kNumRanks; ++step) {
      const Rank peer((victim.value() + step) % kNumRanks);
      if (peer == rank.rank()) continue;
      Put put = rank.put_of(peer, 0, rank.rank().index() * kPutBytes, kPutBytes);
      put.arrival = ArrivalKey{Epoch(1), 0};
      rank.transport().put(put, deadline, "dispatch");
    }
    for (int step = 0; step < kNumRanks; ++step) {
      const Rank peer((victim.value() + step) % kNumRanks);
      if (peer == rank.rank()) continue;
      rank.transport().await_arrival({{Epoch(1), 0}, peer, round, "dispatch"}, deadline);
    }
  }
}

void require_named(const Outcome& outcome, Rank own, Rank victim) {
  require(outcome.code == ErrorCode::kTimeout || outcome.code == ErrorCode::kPeerLost,
          "expected a time-out or a lost peer, seen: {}", outcome.text);
  require_words(outcome.text, {fmt::format("rank {}: dispatch: ", own.value())});
  if (own != victim) require_words(outcome.text, {fmt::format("rank {}", victim.value())});
}

void survivors_go_on(TransportRank& rank, Rank victim) {
  const PutTraffic traffic{.block_bytes = kPutBytes, .put_bytes = 4096, .counter = 1};
  fill_pattern(rank.outgoing().first(kPutBytes), rank.rank());
  const Rank other(kNumRanks - victim.value() - rank.rank().value());
  send_block(rank, other, traffic);
  rank.await(other, {Epoch(1), 1}, traffic.puts_per_block());
  require_pattern(rank.incoming().subspan(other.index() * kPutBytes, kPutBytes), 0, other);
  // The other one waits as well, and a flush would wait for the cut host.
  for (int i = 0; i < 1000; ++i) rank.transport().progress();
}

class CutLink : public ::testing::TestWithParam<Cut> {
 protected:
  void SetUp() override { skip_without_fabric(); }
};

// What libfabric keeps for the life of a process exists after this.
void connect_once(Bootstrap& control) {
  TransportRank rank(control, tcp_kind(), kHalfBytes);
  exchange_blocks(rank, {.block_bytes = 100, .put_bytes = 100, .num_rounds = 1});
  rank.drop_transport();
  control.barrier("dropped", soon());
}

TEST_P(CutLink, EveryRankNamesPeerAndStageByItsDeadlineAndEndsCleanly) {
  const HostNetwork network(kNumRanks);
  const Rank victim(GetParam().host);
  const auto errors = run_on_hosts(network, kNumRanks, [&](Bootstrap& control) {
    for (int i = 0; i < 3; ++i) connect_once(control);
    const std::size_t descriptors = count_open_descriptors();
    {
      TransportRank rank(control, tcp_kind(), kHalfBytes);
      Clock::time_point begin;
      const Outcome outcome = outcome_of([&] { stream(rank, GetParam(), begin); });
      require(Clock::now() - begin < kPatience + kGrace, "told too late: {}", outcome.text);
      require_named(outcome, control.rank(), victim);
      if (control.rank() != victim) survivors_go_on(rank, victim);
    }
    require(count_open_descriptors() <= descriptors, "descriptors: {} before, {} after",
            descriptors, count_open_descriptors());
    control.barrier("end of test", soon());
  });
  EXPECT_EQ(errors, std::vector<std::string>(kNumRanks));
}

INSTANTIATE_TEST_SUITE_P(Hosts, CutLink,
                         ::testing::Values(Cut{"InAStream", 2, 20}, Cut{"OfRankZero", 0, 20},
                                           Cut{"BeforeTheFirstPut", 1, 0}),
                         [](const auto& parameter) { return std::string(parameter.param.name); });

class CutGroup : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override { skip_without_hosts(); }
};

TEST_P(CutGroup, BarrierNamesTheCutHostByItsDeadline) {
  const HostNetwork network(kNumRanks);
  const Rank victim(GetParam());
  const auto errors = run_on_hosts(network, kNumRanks, [&](Bootstrap& control) {
    const Group group = connect_job(control, kPatience + kGrace);
    group.barrier();
    control.barrier("all have met", soon());
    if (control.rank() == victim) cut_own_link();
    control.barrier("the link is cut", soon());
    const auto begin = Clock::now();
    const Outcome outcome = outcome_of(
        [&] { group.bootstrap().barrier("exchange of counts", Deadline::after(kPatience)); });
    require(Clock::now() - begin < kPatience + kGrace, "told too late: {}", outcome.text);
    // The cut host misses rank 0, or, being rank 0, all others.
    const Rank missed = control.rank() != victim ? victim : Rank(victim == Rank(0) ? 2 : 0);
    require_failure(outcome, ErrorCode::kTimeout,
                    {fmt::format("rank {}: exchange of counts: ", control.rank().value()),
                     std::to_string(missed.value()) + " did not arrive"});
  });
  EXPECT_EQ(errors, std::vector<std::string>(kNumRanks));
}

TEST_P(CutGroup, MeetingNamesTheHostThatCannotCome) {
  const HostNetwork network(kNumRanks);
  const Rank victim(GetParam());
  const auto errors = run_on_hosts(network, kNumRanks, [&](Bootstrap& control) {
    if (control.rank() == victim) cut_own_link();
    control.barrier("the link is cut", soon());
    const Outcome outcome = outcome_of([&] { connect_job(control, kPatience); });
    const std::string own = fmt::format("rank {}: rendezvous: ", control.rank().value());
    const bool misses_rank_0 = victim == Rank(0) || control.rank() == victim;
    if (control.rank() == Rank(0) || !misses_rank_0) {
      const char* missing = victim == Rank(0) ? "ranks 1, 2 did not arrive" : "2 did not arrive";
      require_failure(outcome, ErrorCode::kTimeout, {own, missing});
    } else {
      require_failure(outcome, ErrorCode::kTimeout, {own, "could not reach rank 0 at 10.77.0.1"});
    }
  });
  EXPECT_EQ(errors, std::vector<std::string>(kNumRanks));
}

INSTANTIATE_TEST_SUITE_P(Hosts, CutGroup, ::testing::Values(0, 2),
                         [](const auto& parameter) { return std::to_string(parameter.param); });

}  // namespace
}  // namespace moelink::test
