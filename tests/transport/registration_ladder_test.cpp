// What is tried for memory of a GPU, on capabilities as providers report them.
#include "transport/registration_ladder.hpp"

#include <gtest/gtest.h>

namespace moelink {
namespace {

using Ladder = std::vector<GpuRegistration>;
constexpr GpuRegistration kDmabuf = GpuRegistration::kDmabuf;
constexpr GpuRegistration kHmem = GpuRegistration::kHmem;
constexpr GpuRegistration kPinnedHost = GpuRegistration::kPinnedHost;

FabricCapabilities modern(const std::string& provider) {
  return {.provider = provider,
          .version = {1, 22},
          .hmem = true,
          .dmabuf = true,
          .gpu_exports_dmabuf = true};
}

TEST(RegistrationLadder, HardwareWithEverythingTriesDmabufThenHmem) {
  for (const char* provider : {"verbs", "efa", "cxi"}) {
    EXPECT_EQ(plan_gpu_registration(modern(provider)), (Ladder{kDmabuf, kHmem, kPinnedHost}))
        << provider;
  }
}

TEST(RegistrationLadder, OlderPiecesLeaveOutDmabuf) {
  FabricCapabilities capabilities = modern("verbs");
  capabilities.version = {1, 19};
  EXPECT_EQ(plan_gpu_registration(capabilities), (Ladder{kHmem, kPinnedHost}));
  capabilities = modern("verbs");
  capabilities.gpu_exports_dmabuf = false;
  EXPECT_EQ(plan_gpu_registration(capabilities), (Ladder{kHmem, kPinnedHost}));
  capabilities = modern("verbs");
  capabilities.dmabuf = false;
  EXPECT_EQ(plan_gpu_registration(capabilities), (Ladder{kHmem, kPinnedHost}));
}

TEST(RegistrationLadder, DistributionBuildsOfHardwareProvidersFallToPinnedMemory) {
  for (const char* provider : {"verbs", "efa", "cxi"}) {
    const FabricCapabilities debian{.provider = provider, .version = {1, 17}};
    EXPECT_EQ(plan_gpu_registration(debian), Ladder{kPinnedHost}) << provider;
  }
}

TEST(RegistrationLadder, EfaWritesFromDevicesOnlySince118) {
  FabricCapabilities capabilities = modern("efa");
  capabilities.version = {1, 17};
  EXPECT_EQ(plan_gpu_registration(capabilities), Ladder{kPinnedHost});
  capabilities.version = {1, 18};
  EXPECT_EQ(plan_gpu_registration(capabilities), (Ladder{kHmem, kPinnedHost}));
}

TEST(RegistrationLadder, SoftwareProvidersNeverTouchTheGpu) {
  // The shared-memory provider of 1.17 answers a request for FI_HMEM without having CUDA.
  for (const char* provider : {"tcp", "shm"}) {
    EXPECT_EQ(plan_gpu_registration(modern(provider)), Ladder{kPinnedHost}) << provider;
  }
}

}  // namespace
}  // namespace moelink
