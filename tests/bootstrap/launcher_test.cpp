// read_launcher: what each launcher's variables mean, and which one is blamed.
#include "bootstrap/launcher.hpp"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "conformance/rank_results.hpp"

namespace moelink::test {
namespace {

using Variables = std::map<std::string, std::string>;

RendezvousConfig read(const Variables& variables) {
  const auto lookup = [&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
  return read_launcher(lookup, "secret");
}

Variables with(Variables variables, const Variables& more) {
  for (const auto& [name, value] : more) variables[name] = value;
  return variables;
}

void expect_config(const RendezvousConfig& config, int rank, int num_ranks,
                   const std::string& host) {
  EXPECT_EQ(config.rank, Rank(rank));
  EXPECT_EQ(config.num_ranks, num_ranks);
  EXPECT_EQ(config.host, host);
  EXPECT_EQ(config.secret, "secret");
}

void expect_refused(const Variables& variables, const std::vector<std::string>& parts) {
  expect_error(run_rank([&] { read(variables); }), ErrorCode::kInvalidArgument, parts);
}

const Variables kTorchrun{
    {"RANK", "3"}, {"WORLD_SIZE", "8"}, {"MASTER_ADDR", "node1"}, {"MASTER_PORT", "29500"}};
const Variables kOpenMpi{{"OMPI_COMM_WORLD_RANK", "1"},
                         {"OMPI_COMM_WORLD_SIZE", "4"},
                         {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"}};
const Variables kMpich{{"PMI_RANK", "2"}, {"PMI_SIZE", "4"}, {"MPI_LOCALNRANKS", "4"}};
const Variables kSlurm{{"SLURM_PROCID", "5"},
                       {"SLURM_NTASKS", "16"},
                       {"SLURM_STEP_NUM_TASKS", "8"},
                       {"SLURM_STEP_NODELIST", "gpu[003-004]"},
                       {"SLURM_JOB_NODELIST", "gpu[001-009]"},
                       {"SLURM_JOB_ID", "4711"}};

TEST(Launcher, UnderstandsTorchrunAndAvoidsThePortOfItsStore) {
  expect_config(read(kTorchrun), 3, 8, "node1");
  EXPECT_EQ(read(kTorchrun).port, 29501);
}

TEST(Launcher, UnderstandsOpenMpiMpichAndPmix) {
  expect_config(read(kOpenMpi), 1, 4, "127.0.0.1");
  expect_config(read(kMpich), 2, 4, "127.0.0.1");
  expect_config(read({{"PMIX_RANK", "6"}, {"SLURM_NTASKS", "7"}}), 6, 7, "127.0.0.1");
}

TEST(Launcher, UnderstandsSlurmAndTakesTheFirstHostOfTheStep) {
  expect_config(read(kSlurm), 5, 8, "gpu003");
  expect_config(
      read(
          {{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "2"}, {"SLURM_LAUNCH_NODE_IPADDR", "10.1.2.3"}}),
      0, 2, "10.1.2.3");
}

TEST(Launcher, StaysOnLoopbackWhenSlurmGivesOneHost) {
  expect_config(read(with(kSlurm, {{"SLURM_STEP_NODELIST", "gpu003"}})), 5, 8, "127.0.0.1");
}

TEST(Launcher, UnderstandsRanksSetByHand) {
  expect_config(read({{"MOELINK_RANK", "1"}, {"MOELINK_NUM_RANKS", "2"}}), 1, 2, "127.0.0.1");
}

TEST(Launcher, PrefersTheInnermostLauncher) {
  expect_config(read(with(kSlurm, kOpenMpi)), 1, 4, "127.0.0.1");
  expect_config(read(with(kSlurm, kTorchrun)), 3, 8, "node1");
}

TEST(Launcher, LetsHostAndPortBeOverridden) {
  const Variables overrides{{"MOELINK_HOST", "10.0.0.9"}, {"MOELINK_PORT", "1234"}};
  for (const Variables& launcher : {kTorchrun, kOpenMpi, kMpich, kSlurm}) {
    const RendezvousConfig config = read(with(launcher, overrides));
    EXPECT_EQ(config.host, "10.0.0.9");
    EXPECT_EQ(config.port, 1234);
  }
}

TEST(Launcher, DerivesOnePortPerSlurmJobAndStep) {
  const auto port = read(kSlurm).port;
  EXPECT_GE(port, 20000);
  EXPECT_LT(port, 30000);
  EXPECT_EQ(read(with(kSlurm, {{"SLURM_PROCID", "0"}})).port, port);
  EXPECT_NE(read(with(kSlurm, {{"SLURM_JOB_ID", "4712"}})).port, port);
  EXPECT_NE(read(with(kSlurm, {{"SLURM_STEP_ID", "1"}})).port, port);
}

TEST(Launcher, FallsBackToTheDefaultPort) {
  EXPECT_EQ(read(kOpenMpi).port, kDefaultRendezvousPort);
  EXPECT_NE(read(with(kOpenMpi, {{"PMIX_NAMESPACE", "prte-1@1"}})).port, kDefaultRendezvousPort);
}

TEST(Launcher, NamesWhatIsMissing) {
  expect_refused({}, {"no launcher found", "MOELINK_RANK", "SLURM_PROCID"});
  expect_refused({{"RANK", "0"}}, {"RANK is set but WORLD_SIZE is not"});
  expect_refused({{"PMI_RANK", "0"}, {"PMI_SIZE", ""}}, {"PMI_SIZE"});
  expect_refused(with(kOpenMpi, {{"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}}),
                 {"MOELINK_HOST", "2 of 4 ranks"});
}

TEST(Launcher, NamesWhatIsMalformed) {
  expect_refused(with(kTorchrun, {{"RANK", "three"}}), {"RANK is 'three'", "0 to 7"});
  expect_refused(with(kTorchrun, {{"RANK", "8"}}), {"RANK is '8'", "0 to 7"});
  expect_refused(with(kTorchrun, {{"RANK", "-1"}}), {"RANK is '-1'"});
  expect_refused(with(kTorchrun, {{"WORLD_SIZE", "0"}}), {"WORLD_SIZE is '0'"});
  expect_refused(with(kTorchrun, {{"WORLD_SIZE", "8x"}}), {"WORLD_SIZE is '8x'"});
  expect_refused(with(kTorchrun, {{"MASTER_PORT", "65535"}}), {"MASTER_PORT", "MOELINK_PORT"});
  expect_refused(with(kTorchrun, {{"MOELINK_PORT", "70000"}}), {"MOELINK_PORT is '70000'"});
  expect_refused(with(kSlurm, {{"SLURM_STEP_NODELIST", "gpu[3-"}}),
                 {"SLURM_STEP_NODELIST is 'gpu[3-'", "MOELINK_HOST"});
}

TEST(HostList, ExpandsNamesRangesAndLeadingZeros) {
  const auto expand = [](const char* list) { return expand_host_list(list, "LIST"); };
  using Hosts = std::vector<std::string>;
  EXPECT_EQ(expand("login1"), Hosts({"login1"}));
  EXPECT_EQ(expand("a,b.c"), Hosts({"a", "b.c"}));
  EXPECT_EQ(expand("node[003-005,9]"), Hosts({"node003", "node004", "node005", "node9"}));
  EXPECT_EQ(expand("n[09-11]x,m1"), Hosts({"n09x", "n10x", "n11x", "m1"}));
  EXPECT_EQ(expand("r[1-2]c[3,4]"), Hosts({"r1c3", "r1c4", "r2c3", "r2c4"}));
}

TEST(HostList, RefusesMalformedLists) {
  for (const char* list : {"", ",", "a,", "n[", "n[]", "n[1", "n[1-]", "n[-1]", "n[2-1]", "n[a]",
                           "n]1[", "n[1-99999999]", "n[0-65535]m[0-65535]"}) {
    SCOPED_TRACE(list);
    expect_error(run_rank([&] { expand_host_list(list, "LIST"); }), ErrorCode::kInvalidArgument,
                 {"LIST is '" + std::string(list) + "'"});
  }
}

}  // namespace
}  // namespace moelink::test
