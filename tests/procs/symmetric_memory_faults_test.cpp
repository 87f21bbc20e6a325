// Processes that die, strangers that connect, and limits that are too small.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <fstream>
#include <thread>

#include "conformance/bootstrap_hook.hpp"
#include "conformance/forked_bootstrap.hpp"
#include "conformance/memory_probes.hpp"
#include "conformance/texts.hpp"
#include "conformance/thread_ranks.hpp"
#include "symm/newcomers.hpp"
#include "symm/peer_links.hpp"
#include "symm/unix_socket.hpp"

namespace moelink::test {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;  // its shadow memory leaves no use for RLIMIT_AS
#else
constexpr bool kSanitized = false;
#endif

constexpr std::size_t kBytes = std::size_t{8} << 20;

std::vector<std::string> errors_of(const std::vector<RankOutcome>& outcomes) {
  std::vector<std::string> errors;
  for (const RankOutcome& outcome : outcomes) errors.push_back(outcome.error);
  return errors;
}

TEST(SymmetricMemoryFaults, KilledProcessIsNoticedAndItsMemoryStaysUsable) {
  const auto outcomes = run_forked_ranks(4, [](Bootstrap& bootstrap) {
    const auto memory = open_symmetric_memory(bootstrap, kBytes, soon());
    const Rank victim(2);
    const Rank own = bootstrap.rank();
    word_of(*memory, victim, own.index()) = mark_of(own, victim);
    bootstrap.barrier("before the kill", soon());
    if (own == victim) die_by_sigkill();
    wait_until_dead(*memory, victim);
    for (int rank = 0; rank < 4; ++rank) {
      require(
          word_of(*memory, victim, static_cast<std::size_t>(rank)) == mark_of(Rank(rank), victim),
          "the word of rank {} is lost", rank);
    }
    // A survivor that ends is seen as dead too, so only this rank is sure to live.
    require(memory->peer_alive(own), "rank {} takes itself for dead", own.value());
  });
  EXPECT_EQ(outcomes[2].signal, SIGKILL);
  for (const int survivor : {0, 1, 3}) {
    EXPECT_EQ(outcomes[static_cast<std::size_t>(survivor)].error, "") << "rank " << survivor;
  }
}

bool can_watch_processes() {
  const UniqueFd own(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
  return own.valid();
}

TEST(SymmetricMemoryFaults, KilledProcessIsNoticedAlthoughItsChildHoldsTheSockets) {
  if (!can_watch_processes()) GTEST_SKIP() << "this system has no pidfd_open";
  int ends[2] = {-1, -1};
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd reading(ends[0]);
  UniqueFd writing(ends[1]);
  const auto outcomes = run_forked_ranks(2, [&](Bootstrap& bootstrap) {
    const auto memory = open_symmetric_memory(bootstrap, kBytes, soon());
    if (bootstrap.rank() == Rank(1)) {
      if (::fork() == 0) {  // lives until the test process closes its end of the pipe
        writing.reset();
        char nothing = 0;
        while (::read(reading.get(), &nothing, 1) > 0) {
        }
        ::_exit(0);
      }
      die_by_sigkill();
    }
    wait_until_dead(*memory, Rank(1));
  });
  EXPECT_EQ(outcomes[0].error, "");
  EXPECT_EQ(outcomes[1].signal, SIGKILL);
}

TEST(SymmetricMemoryFaults, ProcessKilledWhileOpeningMakesTheOthersFailNamingIt) {
  for (const char* const stage : {"finding the hosts of ranks", "making symmetric memory"}) {
    const auto outcomes = run_forked_ranks(3, [&](Bootstrap& bootstrap) {
      BootstrapHook hook(bootstrap, [&](const std::string& what, const auto&) {
        if (bootstrap.rank() == Rank(1) && what == stage) die_by_sigkill();
      });
      open_symmetric_memory(hook, kBytes, Deadline::after(std::chrono::seconds(2)));
    });
    EXPECT_EQ(outcomes[1].signal, SIGKILL) << stage;
    for (const std::size_t survivor : {std::size_t{0}, std::size_t{2}}) {
      const std::string& error = outcomes[survivor].error;
      EXPECT_TRUE(mentions(error, {"peer lost"}) || mentions(error, {"timeout"})) << error;
      EXPECT_TRUE(mentions(error, {"rank 1"}) || mentions(error, {"ranks 1"})) << error;
    }
  }
}

// Connects to rank 0 before rank 1 does, in its name but without its proof, in several ways.
class Strangers {
 public:
  explicit Strangers(const std::vector<std::string>& blobs)
      : target_(PeerTicket::decode(std::string_view(blobs.front()).substr(1))) {
    Hello hello;
    hello.rank = 1;
    hello.proof = RandomToken::make();
    connect_saying(&hello, sizeof(hello));
    hello.proof = target_.proof;  // the target's own
    connect_saying(&hello, sizeof(hello));
    hello.rank = 0;
    connect_saying(&hello, sizeof(hello));
    hello.rank = -5;
    connect_saying(&hello, sizeof(hello));
    connect_saying("nonsense", 8);
    connect_saying(nullptr, 0);
    silent_ = connect_to(target_.socket_name, Rank(0), soon());
  }

  bool all_were_refused() const {
    char byte = 0;
    for (const UniqueFd& socket : sockets_) {
      if (wait_readable(socket.get(), soon()) != Readiness::kReady) return false;
      if (receive_message(socket.get(), &byte, 1) != 0) return false;
    }
    return wait_readable(silent_.get(), soon()) == Readiness::kReady;
  }

 private:
  void connect_saying(const void* data, std::size_t bytes) {
    sockets_.push_back(connect_to(target_.socket_name, Rank(0), soon()));
    if (data != nullptr) {
      send_message(sockets_.back().get(), data, bytes);
    } else {
      sockets_.pop_back();  // hangs up at once
    }
  }

  PeerTicket target_;
  std::vector<UniqueFd> sockets_;
  UniqueFd silent_;
};

TEST(SymmetricMemoryFaults, ConnectionsWithoutTheProofAreRefusedAndOpeningSucceeds) {
  const auto outcomes = run_forked_ranks(3, [](Bootstrap& bootstrap) {
    std::optional<Strangers> strangers;
    BootstrapHook hook(bootstrap, [&](const std::string& what, const auto& blobs) {
      if (bootstrap.rank() == Rank(1) && what == "making symmetric memory") {
        strangers.emplace(blobs);
      }
    });
    const auto memory = open_symmetric_memory(hook, kBytes, soon());
    word_of(*memory, Rank(0), bootstrap.rank().index()) = 1;
    bootstrap.barrier("after writing", soon());
    for (std::size_t i = 0; i < 3; ++i) {
      require(word_of(*memory, Rank(0), i) == 1, "rank {} did not write", i);
    }
    require(!strangers || strangers->all_were_refused(), "a stranger was let in");
    bootstrap.barrier("end of test", soon());
  });
  EXPECT_EQ(errors_of(outcomes), std::vector<std::string>(outcomes.size()));
}

TEST(SymmetricMemoryFaults, MoreStrangersThanTheQueueHoldsDoNotPreventOpening) {
  const auto outcomes = run_forked_ranks(2, [](Bootstrap& bootstrap) {
    std::vector<UniqueFd> strangers;
    BootstrapHook hook(bootstrap, [&](const std::string& what, const auto& blobs) {
      if (bootstrap.rank() != Rank(1) || what != "making symmetric memory") return;
      const auto target = PeerTicket::decode(std::string_view(blobs.front()).substr(1));
      for (int i = 0; i < 100; ++i)
        strangers.push_back(connect_to(target.socket_name, Rank(0), soon()));
    });
    open_symmetric_memory(hook, kBytes, soon());
  });
  EXPECT_EQ(errors_of(outcomes), std::vector<std::string>(outcomes.size()));
}

void set_limit(__rlimit_resource resource, std::size_t value) {
  rlimit limit{};
  ::getrlimit(resource, &limit);
  limit.rlim_cur = value;
  require(::setrlimit(resource, &limit) == 0, "cannot set a limit of {}", value);
}

std::size_t virtual_bytes() {
  std::ifstream stream("/proc/self/statm");
  std::size_t pages = 0;
  stream >> pages;
  return pages * 4096;
}

// All ranks must fail, naming rank 1, which has the limit, and be able to open a smaller memory
// then.
std::vector<RankOutcome> open_with_limit_at_rank_1(const std::function<void()>& set,
                                                   std::size_t bytes) {
  return run_forked_ranks(3, [&](Bootstrap& bootstrap) {
    if (bootstrap.rank() == Rank(1)) set();
    std::string failure;
    try {
      open_symmetric_memory(bootstrap, bytes, soon());
    } catch (const Error& error) {
      failure = error.what();
    }
    bootstrap.barrier("after the failure", soon());
    require(failure.empty(), "{}", failure);
  });
}

TEST(SymmetricMemoryFaults, FileSizeLimitIsNamedAtAllRanks) {
  const auto outcomes =
      open_with_limit_at_rank_1([] { set_limit(RLIMIT_FSIZE, 1U << 20); }, kBytes);
  EXPECT_TRUE(all_mention(errors_of(outcomes),
                          {"system error", "rank 1", "8388608", "RLIMIT_FSIZE is 1048576 bytes",
                           "max_symmetric_bytes", "MOELINK_MAX_SYMMETRIC_BYTES"}));
}

TEST(SymmetricMemoryFaults, AddressSpaceLimitIsNamedAtAllRanks) {
  if (kSanitized) GTEST_SKIP() << "sanitizers need all addresses";
  const auto outcomes = open_with_limit_at_rank_1(
      [] { set_limit(RLIMIT_AS, virtual_bytes() + (std::size_t{64} << 20)); },
      std::size_t{1} << 30);
  EXPECT_TRUE(all_mention(errors_of(outcomes), {"system error", "rank 1", "1073741824",
                                                "RLIMIT_AS is", "MOELINK_MAX_SYMMETRIC_BYTES"}));
}

TEST(SymmetricMemoryFaults, OpenFilesLimitIsNamedAtAllRanks) {
  const auto outcomes = open_with_limit_at_rank_1(
      [] { set_limit(RLIMIT_NOFILE, count_open_descriptors() + 8); }, kBytes);
  EXPECT_TRUE(all_mention(errors_of(outcomes), {"rank 1", "open files", "RLIMIT_NOFILE"}));
}

TEST(SymmetricMemoryFaults, AddressSpaceLimitIsNamedAtAllThreadsOfAProcess) {
  if (kSanitized) GTEST_SKIP() << "sanitizers need all addresses";
  const auto outcomes = run_forked_ranks(1, [](Bootstrap&) {
    set_limit(RLIMIT_AS, virtual_bytes() + (std::size_t{512} << 20));
    const auto errors = run_thread_ranks(2, [](Bootstrap& bootstrap) {
      open_symmetric_memory(bootstrap, std::size_t{1} << 40, soon());
    });
    for (const std::string& error : errors) {
      require(error.find("rank 0: cannot reserve 2 regions") != std::string::npos &&
                  error.find("RLIMIT_AS is") != std::string::npos,
              "unexpected error '{}'", error);
    }
  });
  EXPECT_EQ(outcomes[0].error, "");
}

}  // namespace
}  // namespace moelink::test
