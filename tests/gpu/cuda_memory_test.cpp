// Symmetric memory for GPUs, of all kinds, and what ranks that are threads see when opening fails.
#include "symm/cuda/cuda_memory.hpp"

#include <gtest/gtest.h>

#include "conformance/symmetric_memory_conformance.hpp"
#include "conformance/texts.hpp"
#include "conformance/thread_ranks.hpp"
#include "gpu/cuda_ranks.hpp"
#include "gpu/rank_skips.hpp"
#include "symm/cuda/cuda_vmm.hpp"

namespace moelink::test {
namespace {

constexpr std::size_t kGranularity = std::size_t{2} << 20;

template <class Open>
MemoryKind make_kind(const char* name, const char* kind, decltype(MemoryKind::run) run, Open open) {
  return {name, kind, run, open, copy_by_cuda, kGranularity, Discard::kKeeps};
}

std::shared_ptr<SymmetricMemory> open_auto(Bootstrap& bootstrap, std::size_t bytes,
                                           const Deadline& deadline) {
  return open_on_own_device("auto", bootstrap, bytes, deadline);
}

std::shared_ptr<SymmetricMemory> open_vmm(Bootstrap& bootstrap, std::size_t bytes,
                                          const Deadline& deadline) {
  return open_on_own_device("vmm", bootstrap, bytes, deadline);
}

std::shared_ptr<SymmetricMemory> open_fabric(Bootstrap& bootstrap, std::size_t bytes,
                                             const Deadline& deadline) {
  return open_on_own_device("fabric", bootstrap, bytes, deadline);
}

// Tried in a process of its own: the test process must not use CUDA before it forks ranks.
std::string why_no_fabric() {
  return skip_reason(run_cuda_processes(2, [](Bootstrap& bootstrap) {
    try {
      open_fabric(bootstrap, 4096, soon());
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUnsupported) throw;
      skip_rank(error.what());
    }
  }));
}

std::shared_ptr<SymmetricMemory> open_ipc(Bootstrap& bootstrap, std::size_t bytes,
                                          const Deadline& deadline) {
  return open_on_own_device("ipc", bootstrap, bytes, deadline);
}

std::shared_ptr<SymmetricMemory> open_pinned(Bootstrap& bootstrap, std::size_t bytes,
                                             const Deadline& deadline) {
  return open_on_own_device("pinned", bootstrap, bytes, deadline);
}

// Of threads, which nothing else chooses this kind for: some ranks may share a process.
std::shared_ptr<SymmetricMemory> open_vmm_of_threads(Bootstrap& bootstrap, std::size_t bytes,
                                                     const Deadline& deadline) {
  GpuPlan plan{round_up(bytes, kGranularity), HostPlacement::kOneProcess, {}};
  for (int rank = 0; rank < bootstrap.num_ranks(); ++rank) {
    plan.devices.push_back(device_of(Rank(rank)));
  }
  check_cuda(cudaSetDevice(device_of(bootstrap.rank())), "select a device");
  return open_cuda_vmm(bootstrap, plan, Sharing::kDescriptor, deadline);
}

INSTANTIATE_TEST_SUITE_P(
    CudaThreads, SymmetricMemoryConformance,
    ::testing::Values(make_kind("Inproc", "cuda_inproc", run_thread_ranks, open_auto),
                      make_kind("Vmm", "cuda_vmm", run_thread_ranks, open_vmm_of_threads),
                      make_kind("Pinned", "cuda_pinned", run_thread_ranks, open_pinned)),
    name_of_kind);

MemoryKind make_fabric_kind() {
  MemoryKind kind = make_kind("Fabric", "cuda_fabric", run_cuda_processes, open_fabric);
  kind.why_not = why_no_fabric;
  return kind;
}

INSTANTIATE_TEST_SUITE_P(
    CudaProcesses, SymmetricMemoryConformance,
    ::testing::Values(make_kind("Vmm", "cuda_vmm", run_cuda_processes, open_vmm),
                      make_fabric_kind(),
                      make_kind("Ipc", "cuda_ipc", run_cuda_processes, open_ipc),
                      make_kind("Pinned", "cuda_pinned", run_cuda_processes, open_pinned)),
    name_of_kind);

TEST(OpenCudaMemory, FailsAtAllRanksWhenADeviceDoesNotExist) {
  for (const int device : {-1, 1000}) {
    const auto errors = run_thread_ranks(3, [device](Bootstrap& bootstrap) {
      open_cuda_memory(bootstrap, 4096, bootstrap.rank() == Rank(1) ? device : 0, soon());
    });
    EXPECT_TRUE(all_mention(errors, {"invalid argument", "rank 1: device is",
                                     std::to_string(device), "this process sees"}));
  }
}

TEST(OpenCudaMemory, FailsAtAllRanksWhenSizesDifferOrAreZero) {
  auto errors = run_thread_ranks(2, [](Bootstrap& bootstrap) {
    open_cuda_memory(bootstrap, bootstrap.rank() == Rank(1) ? 8192 : 4096, 0, soon());
  });
  EXPECT_TRUE(all_mention(errors, {"invalid argument", "rank 0 asks for 4096", "rank 1 for 8192"}));
  errors =
      run_thread_ranks(2, [](Bootstrap& bootstrap) { open_cuda_memory(bootstrap, 0, 0, soon()); });
  EXPECT_TRUE(all_mention(errors, {"invalid argument", "asks for 0 bytes"}));
}

TEST(OpenCudaMemory, FailsAtAllRanksWhenTheDeviceHasNotSoMuchAndWorksThen) {
  for (const std::size_t bytes : {std::size_t{1} << 42, ~std::size_t{0}}) {
    for (const auto open : {open_auto, open_vmm_of_threads, open_pinned}) {
      const auto errors = run_thread_ranks(2, [&](Bootstrap& bootstrap) {
        std::string text;
        try {
          open(bootstrap, bytes, soon());
        } catch (const Error& error) {
          text = error.what();
        }
        EXPECT_EQ(open(bootstrap, 4096, soon())->size_bytes(), kGranularity);
        require(text.empty(), "{}", text);
      });
      EXPECT_TRUE(all_mention(errors, {"system error", "bytes", "MOELINK_MAX_SYMMETRIC_BYTES"}));
    }
  }
}

TEST(OpenCudaMemory, LeavesTheCurrentDeviceAsItWas) {
  int count = 0;
  ASSERT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
  for (int device = 0; device < count; ++device) {
    const auto errors = run_thread_ranks(1, [&](Bootstrap& bootstrap) {
      check_cuda(cudaSetDevice(count - 1 - device), "select a device");
      open_cuda_memory(bootstrap, 4096, device, soon());
      int current = -1;
      check_cuda(cudaGetDevice(&current), "read the current device");
      require(current == count - 1 - device, "device {} is current", current);
    });
    EXPECT_EQ(errors, std::vector<std::string>(1));
  }
}

}  // namespace
}  // namespace moelink::test
