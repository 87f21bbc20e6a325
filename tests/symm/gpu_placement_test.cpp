// Which kind of memory for GPUs suits which ranks.
#include "symm/gpu_placement.hpp"

#include <gtest/gtest.h>

#include "conformance/texts.hpp"
#include "moelink/errors.hpp"

namespace moelink::test {
namespace {

enum class Ranks { kThreads, kProcesses };

// GPUs that can do everything, each rank with one of its own.
std::vector<GpuIdentity> make_identities(Ranks ranks, const std::string& wish) {
  std::vector<GpuIdentity> identities(3);
  for (std::size_t rank = 0; rank < identities.size(); ++rank) {
    GpuIdentity& identity = identities[rank];
    identity.host = HostIdentity::of_this_process(4096);
    if (ranks == Ranks::kProcesses) identity.host.process += static_cast<std::int64_t>(rank);
    identity.device = static_cast<int>(rank);
    identity.bus_id = "0000:0" + std::to_string(rank) + ":00.0";
    identity.maps_addresses = true;
    identity.exports_descriptors = true;
    identity.exports_fabric = true;
    identity.granularity = std::size_t{2} << 20;
    identity.wish = wish;
  }
  return identities;
}

std::string error_of(const std::vector<GpuIdentity>& identities) {
  try {
    gpu_memory_kind_of(identities);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(GpuIdentity, SurvivesEncoding) {
  GpuIdentity identity = make_identities(Ranks::kProcesses, "ipc")[2];
  identity.unreachable = {"0000:00:00.0", "0000:01:00.0"};
  identity.exports_descriptors = false;
  const GpuIdentity decoded = GpuIdentity::decode(identity.encode());
  EXPECT_EQ(decoded.device, 2);
  EXPECT_EQ(decoded.bus_id, "0000:02:00.0");
  EXPECT_EQ(decoded.unreachable, identity.unreachable);
  EXPECT_TRUE(decoded.maps_addresses);
  EXPECT_FALSE(decoded.exports_descriptors);
  EXPECT_TRUE(decoded.exports_fabric);
  EXPECT_EQ(decoded.granularity, identity.granularity);
  EXPECT_EQ(decoded.wish, "ipc");
  EXPECT_TRUE(decoded.host.same_process(identity.host));
  EXPECT_EQ(decoded.host.size_bytes, 4096U);
}

TEST(GpuIdentity, RefusesTextsThatAreNoEncoding) {
  const std::string text = make_identities(Ranks::kThreads, "auto")[0].encode();
  const std::size_t start_of_size = text.rfind('\n') + 1;  // fewer digits would be a number too
  for (std::size_t length = 0; length <= start_of_size; ++length) {
    EXPECT_THROW(GpuIdentity::decode(text.substr(0, length)), Error) << text.substr(0, length);
  }
}

TEST(GpuMemoryKind, SuitsThreadsWhateverProcessesWouldWish) {
  for (const char* wish : {"auto", "vmm", "fabric", "ipc"}) {
    EXPECT_EQ(gpu_memory_kind_of(make_identities(Ranks::kThreads, wish)), GpuMemoryKind::kInproc);
  }
  auto identities = make_identities(Ranks::kThreads, "auto");
  identities[1].maps_addresses = false;
  EXPECT_EQ(gpu_memory_kind_of(identities), GpuMemoryKind::kPinned);
}

TEST(GpuMemoryKind, OfProcessesIsTheOneWished) {
  const auto kind_of = [](const char* wish) {
    return gpu_memory_kind_of(make_identities(Ranks::kProcesses, wish));
  };
  EXPECT_EQ(kind_of("auto"), GpuMemoryKind::kVmm);
  EXPECT_EQ(kind_of("vmm"), GpuMemoryKind::kVmm);
  EXPECT_EQ(kind_of("fabric"), GpuMemoryKind::kFabric);
  EXPECT_EQ(kind_of("ipc"), GpuMemoryKind::kIpc);
  EXPECT_EQ(kind_of("pinned"), GpuMemoryKind::kPinned);
}

TEST(GpuMemoryKind, OfProcessesIsIpcWhereDescriptorsAreMissing) {
  auto identities = make_identities(Ranks::kProcesses, "auto");
  identities[1].exports_descriptors = false;
  EXPECT_EQ(gpu_memory_kind_of(identities), GpuMemoryKind::kIpc);
  identities[2].host = identities[0].host;  // which CUDA IPC cannot join
  EXPECT_EQ(gpu_memory_kind_of(identities), GpuMemoryKind::kPinned);
}

TEST(GpuMemoryKind, IsFabricOnlyIfWished) {
  auto identities = make_identities(Ranks::kProcesses, "auto");
  for (GpuIdentity& identity : identities) identity.exports_descriptors = false;
  EXPECT_EQ(gpu_memory_kind_of(identities), GpuMemoryKind::kIpc);
}

TEST(GpuMemoryKind, OfRanksOnSeveralHostsIsRefusedEvenWithAFabric) {
  auto identities = make_identities(Ranks::kProcesses, "fabric");
  identities[1].host.boot_id += "x";
  EXPECT_TRUE(mentions(error_of(identities), {"unsupported", "rank 1"}));
}

TEST(GpuMemoryKind, IsPinnedWhereOneGpuCannotReachAnother) {
  for (const Ranks ranks : {Ranks::kThreads, Ranks::kProcesses}) {
    auto identities = make_identities(ranks, "auto");
    identities[2].unreachable = {"0000:07:00.0"};  // of no rank
    EXPECT_NE(gpu_memory_kind_of(identities), GpuMemoryKind::kPinned);
    identities[2].unreachable.push_back(identities[0].bus_id);
    EXPECT_EQ(gpu_memory_kind_of(identities), GpuMemoryKind::kPinned);
  }
}

TEST(GpuMemoryKind, ThatCannotBeHadNamesTheRanks) {
  auto identities = make_identities(Ranks::kProcesses, "vmm");
  identities[1].exports_descriptors = false;
  EXPECT_TRUE(mentions(error_of(identities), {"unsupported", "rank 1", "auto, ipc or pinned"}));

  identities = make_identities(Ranks::kProcesses, "fabric");
  identities[2].exports_fabric = false;
  EXPECT_TRUE(mentions(error_of(identities), {"unsupported", "MOELINK_CUDA_MEMORY=fabric",
                                              "of rank 2", "fabric handles"}));

  identities = make_identities(Ranks::kProcesses, "ipc");
  identities[2].host = identities[1].host;
  EXPECT_TRUE(mentions(error_of(identities), {"unsupported", "rank 1", "rank 2", "process"}));

  identities = make_identities(Ranks::kProcesses, "vmm");
  identities[0].unreachable = {identities[1].bus_id};
  EXPECT_TRUE(mentions(error_of(identities), {"unsupported", "rank 0", "rank 1", "access"}));
}

TEST(GpuMemoryKind, ThatRanksWishDifferentlyIsRefused) {
  auto identities = make_identities(Ranks::kProcesses, "auto");
  identities[2].wish = "ipc";
  EXPECT_TRUE(
      mentions(error_of(identities), {"invalid argument", "'auto' at rank 0", "'ipc' at rank 2"}));
}

}  // namespace
}  // namespace moelink::test
