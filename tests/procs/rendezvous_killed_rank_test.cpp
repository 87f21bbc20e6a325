// Ranks as processes: one is killed, the survivors name it.
#include <gtest/gtest.h>

#include <csignal>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bootstrap/tcp_world.hpp"
#include "conformance/forked_bootstrap.hpp"

namespace moelink::test {
namespace {

constexpr int kNumRanks = 4;

// Rank 0's listener, and its port on all ranks: through the test process, so that nobody guesses.
struct Meeting {
  explicit Meeting(Bootstrap& control) {
    std::string text;
    if (control.rank() == Rank(0)) {
      listener = listen_on_loopback();
      text = std::to_string(tcp::listening_port(listener));
    }
    text = control.all_gather(text, "port", Deadline::after(kLongWait))[0];
    port = static_cast<std::uint16_t>(std::stoi(text));
  }

  std::unique_ptr<Bootstrap> join(int rank, int num_ranks) {
    const auto config = tcp_config(rank, num_ranks, port);
    const Deadline deadline = Deadline::after(kLongWait);
    return rank == 0 ? open_tcp_bootstrap_at(std::move(listener), config, deadline)
                     : open_tcp_bootstrap(config, deadline);
  }

  UniqueFd listener;
  std::uint16_t port = 0;
};

void require_failure(const std::function<void()>& call) {
  if (!run_rank(call).code) throw std::runtime_error("a call succeeded that must fail");
}

void expect_survivors_named(const std::vector<RankOutcome>& outcomes, std::size_t killed,
                            const std::string& what) {
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    SCOPED_TRACE("rank " + std::to_string(i) + ": " + outcomes[i].error);
    if (i == killed) {
      EXPECT_EQ(outcomes[i].signal, SIGKILL);
      continue;
    }
    EXPECT_EQ(outcomes[i].exit_code, 1);
    EXPECT_NE(outcomes[i].error.find(what + ": lost rank " + std::to_string(killed)),
              std::string::npos);
  }
}

// The deadlines are far away: only the end of the killed rank's connection can wake the survivors.
void kill_before_its_turn(std::size_t killed) {
  const auto outcomes = run_forked_ranks(kNumRanks, [&](Bootstrap& control) {
    const auto bootstrap = Meeting(control).join(control.rank().value(), kNumRanks);
    for (int round = 0; round < 10; ++round) gather(*bootstrap, blob_of(bootstrap->rank(), 1000));
    if (bootstrap->rank().index() == killed) die_by_sigkill();
    gather(*bootstrap, blob_of(bootstrap->rank(), 1000));
  });
  expect_survivors_named(outcomes, killed, kWhat);
}

TEST(RendezvousKilledRank, MemberIsNamedByAllSurvivors) { kill_before_its_turn(2); }

TEST(RendezvousKilledRank, RankZeroIsNamedByAllSurvivors) { kill_before_its_turn(0); }

TEST(RendezvousKilledRank, MemberIsNamedWhenItDiesWaitingInsideTheCollective) {
  constexpr std::size_t kKilled = 1;
  const auto outcomes = run_forked_ranks(kNumRanks, [&](Bootstrap& control) {
    const auto bootstrap = Meeting(control).join(control.rank().value(), kNumRanks);
    gather(*bootstrap, "first");
    if (bootstrap->rank().index() == kKilled) {
      ::signal(SIGALRM, [](int) { ::kill(::getpid(), SIGKILL); });
      ::alarm(1);  // while it waits for rank 3
    }
    if (bootstrap->rank() == Rank(3)) {
      // Fails as soon as a rank has ended: until then rank 3 sends nothing.
      require_failure([&] { control.barrier("wait for the kill", Deadline::after(kLongWait)); });
    }
    gather(*bootstrap, "second");
  });
  expect_survivors_named(outcomes, kKilled, kWhat);
}

// The second process is rank 2 of three; rank 1 never starts.
TEST(RendezvousKilledRank, MemberIsNamedWhenItDiesBeforeAllHaveJoined) {
  const auto outcomes = run_forked_ranks(2, [](Bootstrap& control) {
    Meeting meeting(control);
    if (control.rank() == Rank(0)) {
      meeting.join(0, 3);
      return;
    }
    const tcp::Credentials credentials(Rank(2), kSecret);
    tcp::JoinerHandshake joiner(credentials, Rank(2), 3);
    RawConnection connection(meeting.port);
    connection.send(joiner.answer(connection.receive_challenge()));
    if (connection.receive_outcome() == rendezvous::Outcome::kAccepted) die_by_sigkill();
  });
  EXPECT_EQ(outcomes[1].signal, SIGKILL);
  EXPECT_NE(outcomes[0].error.find("rendezvous: lost rank 2"), std::string::npos)
      << outcomes[0].error;
}

TEST(RendezvousKilledRank, SurvivorsFormANewGroup) {
  const auto outcomes = run_forked_ranks(3, [](Bootstrap& control) {
    Meeting first_meeting(control);
    Meeting second_meeting(control);
    const int rank = control.rank().value();
    const auto bootstrap = first_meeting.join(rank, 3);
    gather(*bootstrap, "all are here");
    if (rank == 2) die_by_sigkill();
    require_failure([&] { gather(*bootstrap, ""); });
    const auto survivors = second_meeting.join(rank, 2);
    if (gather(*survivors, "alive") != std::vector<std::string>{"alive", "alive"}) {
      throw std::runtime_error("the new group does not work");
    }
  });
  EXPECT_TRUE(outcomes[0].succeeded()) << outcomes[0].error;
  EXPECT_TRUE(outcomes[1].succeeded()) << outcomes[1].error;
  EXPECT_EQ(outcomes[2].signal, SIGKILL);
}

}  // namespace
}  // namespace moelink::test
