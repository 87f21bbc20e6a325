// Which ranks may share memory, and how.
#include "symm/host_identity.hpp"

#include <gtest/gtest.h>

#include "conformance/texts.hpp"
#include "moelink/errors.hpp"

namespace moelink {
namespace {

using test::mentions;

HostIdentity identity(const std::string& host, std::int64_t process) {
  return HostIdentity{"boot-of-" + host, host, "net:[1]", "pid:[1]", process, 1000, 4096};
}

std::string error_of(const std::vector<HostIdentity>& identities) {
  try {
    placement_of(identities);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(HostIdentity, SurvivesEncoding) {
  const HostIdentity own = HostIdentity::of_this_process(12345);
  const HostIdentity copy = HostIdentity::decode(own.encode());
  EXPECT_TRUE(copy.same_process(own));
  EXPECT_EQ(copy.encode(), own.encode());
  EXPECT_EQ(copy.size_bytes, 12345U);
}

TEST(HostIdentity, EmptyNamesSurviveEncoding) {
  HostIdentity nameless = identity("", 7);
  nameless.network_namespace.clear();
  EXPECT_EQ(HostIdentity::decode(nameless.encode()).encode(), nameless.encode());
}

TEST(HostIdentity, GarbageIsRefused) {
  EXPECT_THROW(HostIdentity::decode("a\nb\nc\nd\nnot a number"), Error);
}

TEST(TopologyOfHosts, HasANodeForEachHost) {
  const HostIdentity a = identity("a", 1);
  const HostIdentity b = identity("b", 1);
  const HostIdentity c = identity("c", 1);
  EXPECT_EQ(topology_of({a, a, a}), (Topology{3, 1}));
  EXPECT_EQ(topology_of({a, a, b, b}), (Topology{4, 2}));
  EXPECT_EQ(topology_of({a, b, c}), (Topology{3, 3}));
}

TEST(TopologyOfHosts, RefusesRanksThatAreNotNumberedHostByHost) {
  const HostIdentity a = identity("a", 1);
  const HostIdentity b = identity("b", 1);
  for (const std::vector<HostIdentity>& hosts : {std::vector{a, b, a, b}, {a, a, b}, {a, b, b}}) {
    try {
      topology_of(hosts);
      ADD_FAILURE() << "nothing was thrown";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
      EXPECT_TRUE(mentions(error.what(), {"consecutive ranks on each host", "MOELINK_NODES"}));
    }
  }
}

TEST(Placement, IsOneProcessWhenAllRanksShareIt) {
  EXPECT_EQ(placement_of({identity("a", 1), identity("a", 1)}), HostPlacement::kOneProcess);
}

TEST(Placement, IsOneHostWhenAnyRankIsInAnotherProcess) {
  EXPECT_EQ(placement_of({identity("a", 1), identity("a", 1), identity("a", 2)}),
            HostPlacement::kOneHost);
}

TEST(Placement, IsOneHostWhenEqualProcessIdsAreOfDifferentContainers) {
  HostIdentity other = identity("a", 1);
  other.process_namespace = "pid:[2]";
  EXPECT_EQ(placement_of({identity("a", 1), other}), HostPlacement::kOneHost);
}

TEST(Placement, NamesTwoRanksAndTheirHostsWhenHostsDiffer) {
  EXPECT_TRUE(mentions(error_of({identity("alpha", 1), identity("alpha", 2), identity("beta", 3)}),
                       {"unsupported", "rank 0 is on 'alpha'", "rank 2 is on 'beta'"}));
}

TEST(Placement, NamesTwoRanksWhenNetworkNamespacesDiffer) {
  HostIdentity other = identity("a", 2);
  other.network_namespace = "net:[2]";
  EXPECT_TRUE(mentions(error_of({identity("a", 1), other}),
                       {"rank 0 is on 'a' (boot boot-of-a, net:[1])",
                        "rank 1 is on 'a' (boot boot-of-a, net:[2])"}));
}

TEST(Placement, NamesTwoRanksWhenUsersDiffer) {
  HostIdentity other = identity("a", 2);
  other.user = 1001;
  EXPECT_TRUE(mentions(error_of({identity("a", 1), other}), {"rank 1 as uid 1001"}));
}

}  // namespace
}  // namespace moelink
