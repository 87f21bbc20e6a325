// measure_network between processes of this machine, over libfabric's tcp.
#include <gtest/gtest.h>

#include "conformance/forked_bootstrap.hpp"
#include "conformance/network_reports.hpp"
#include "conformance/outcomes.hpp"
#include "transport/fabric.hpp"

namespace moelink::test {
namespace {

// Asked in a process of its own: libfabric and forks do not mix.
std::string missing_libfabric() {
  return run_process_ranks(1, [](Bootstrap&) {
    const FabricReport report = report_fabric();
    if (!report.problem.empty()) throw std::runtime_error(report.problem);
  })[0];
}

class NetworkCheckProcesses : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string missing = missing_libfabric(); !missing.empty()) GTEST_SKIP() << missing;
  }
};

TEST_F(NetworkCheckProcesses, MeasuresEveryPair) {
  const auto errors = run_process_ranks(3, [](Bootstrap& bootstrap) {
    const NetworkReport report = measure_network(group_over(bootstrap), {.provider = "tcp"});
    require_complete(report, 3);
    require_words(report.ranks[1].transport, {"libfabric tcp", " over "});
    require_same_everywhere(bootstrap, report);
  });
  EXPECT_EQ(errors, std::vector<std::string>(3));
}

TEST_F(NetworkCheckProcesses, FailsAlikeWithoutACommonProvider) {
  const auto errors = run_process_ranks(2, [](Bootstrap& bootstrap) {
    const Outcome outcome =
        outcome_of([&] { measure_network(group_over(bootstrap), {.provider = "cxi"}); });
    require_failure(outcome, ErrorCode::kUnsupported, {"rank 0 has no provider 'cxi'"});
  });
  EXPECT_EQ(errors, std::vector<std::string>(2));
}

TEST_F(NetworkCheckProcesses, LoopbackIsRefusedNamingTheOtherProcess) {
  const auto errors = run_process_ranks(2, [](Bootstrap& bootstrap) {
    const Outcome outcome =
        outcome_of([&] { measure_network(group_over(bootstrap), {.transport = "loopback"}); });
    require_failure(outcome, ErrorCode::kUnsupported, {"process"});
  });
  EXPECT_EQ(errors, std::vector<std::string>(2));
}

// The group says who has gone; nobody waits for longer than a pair may take.
TEST_F(NetworkCheckProcesses, ARankThatDiesIsNamedByTheOthers) {
  const auto outcomes = run_forked_ranks(3, [](Bootstrap& bootstrap) {
    const Group group = group_over(bootstrap);
    measure_network(group, {.provider = "tcp"});
    if (bootstrap.rank() == Rank(2)) die_by_sigkill();
    measure_network(group, {.provider = "tcp"});
  });
  EXPECT_EQ(outcomes[2].signal, SIGKILL);
  for (int rank : {0, 1}) {
    const std::string& text = outcomes[static_cast<std::size_t>(rank)].error;
    EXPECT_NE(text.find("rank 2 has gone"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace moelink::test
