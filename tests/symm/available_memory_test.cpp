// Free memory as seen through the files of a made-up system.
#include "symm/available_memory.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <limits>

#include "symm/symmetric_memory.hpp"

namespace moelink {
namespace {

namespace fs = std::filesystem;

class AvailableMemory : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "moelink_memory_XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    sources_ = {folder_ / "meminfo", folder_ / "cgroup", folder_ / "root"};
  }
  void TearDown() override { fs::remove_all(folder_); }

  void write(const std::string& file, const std::string& text) {
    fs::create_directories((folder_ / file).parent_path());
    std::ofstream(folder_ / file) << text;
  }
  void write_free_kib(int kib) {
    write("meminfo",
          "MemTotal: 999999 kB\nMemFree: 1 kB\nMemAvailable: " + std::to_string(kib) + " kB\n");
  }
  std::size_t available() const { return available_memory_bytes(sources_); }

  fs::path folder_;
  MemorySources sources_;
};

TEST_F(AvailableMemory, IsMemAvailableWithoutCgroups) {
  write_free_kib(1000);
  EXPECT_EQ(available(), 1'024'000U);
}

TEST_F(AvailableMemory, IsUnlimitedWhenNothingCanBeRead) {
  EXPECT_EQ(available(), std::numeric_limits<std::size_t>::max());
}

TEST_F(AvailableMemory, IsWhatTheCgroupHasLeft) {
  write_free_kib(1000);
  write("cgroup", "0::/job\n");
  write("root/job/memory.max", "500000\n");
  write("root/job/memory.current", "200000\n");
  EXPECT_EQ(available(), 300'000U);
}

TEST_F(AvailableMemory, CountsDroppableFileCacheAsLeft) {
  write_free_kib(1000);
  write("cgroup", "0::/job\n");
  write("root/job/memory.max", "500000\n");
  write("root/job/memory.current", "500000\n");
  write("root/job/memory.stat", "anon 300000\ninactive_file 150000\nactive_file 50000\n");
  EXPECT_EQ(available(), 200'000U);
}

TEST_F(AvailableMemory, HeedsTheLimitOfAParentCgroup) {
  write_free_kib(1000);
  write("cgroup", "0::/job/rank\n");
  write("root/job/memory.max", "500000\n");
  write("root/job/memory.current", "499000\n");
  write("root/job/rank/memory.max", "max\n");
  write("root/job/rank/memory.current", "100\n");
  EXPECT_EQ(available(), 1000U);
}

TEST_F(AvailableMemory, HeedsTheRootWhenTheOwnPathIsNotVisible) {
  write_free_kib(1000);
  write("cgroup", "0::/outside/of/the/container\n");
  write("root/memory.max", "500000\n");
  write("root/memory.current", "100000\n");
  EXPECT_EQ(available(), 400'000U);
}

TEST_F(AvailableMemory, IsZeroWhenTheCgroupIsFull) {
  write_free_kib(1000);
  write("cgroup", "0::/job\n");
  write("root/job/memory.max", "500000\n");
  write("root/job/memory.current", "600000\n");
  EXPECT_EQ(available(), 0U);
}

TEST_F(AvailableMemory, FallsBackToVersionOneOfCgroups) {
  write_free_kib(1000);
  write("cgroup", "5:cpuset:/x\n4:hugetlb,memory:/job\n0::/\n");
  write("root/memory/job/memory.limit_in_bytes", "500000\n");
  write("root/memory/job/memory.usage_in_bytes", "450000\n");
  write("root/memory/job/memory.stat", "inactive_file 1\ntotal_inactive_file 20000\n");
  EXPECT_EQ(available(), 70'000U);
}

TEST_F(AvailableMemory, OfThisMachineIsPlausible) {
  EXPECT_GT(available_memory_bytes(), std::size_t{1} << 20);
  EXPECT_LT(available_memory_bytes(), std::numeric_limits<std::size_t>::max());
}

}  // namespace
}  // namespace moelink
