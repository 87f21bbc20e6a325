// Memory files keep their size, and others are told apart from them.
#include "symm/memfd/memory_file.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "moelink/errors.hpp"

namespace moelink {
namespace {

constexpr std::size_t kBytes = 64 * 4096;

TEST(MemoryFile, IsSparse) {
  const UniqueFd file = make_memory_file(std::size_t{1} << 40);
  struct stat status{};
  ASSERT_EQ(::fstat(file.get(), &status), 0);
  EXPECT_EQ(status.st_size, off_t{1} << 40);
  EXPECT_EQ(status.st_blocks, 0);
}

TEST(MemoryFile, CannotBeTruncatedOrGrown) {
  const UniqueFd file = make_memory_file(kBytes);
  EXPECT_NE(::ftruncate(file.get(), 0), 0);
  EXPECT_NE(::ftruncate(file.get(), 2 * kBytes), 0);
  EXPECT_NO_THROW(require_memory_file(file.get(), kBytes));
}

TEST(MemoryFile, OfAnotherSizeIsRefused) {
  const UniqueFd file = make_memory_file(kBytes);
  EXPECT_THROW(require_memory_file(file.get(), kBytes / 2), Error);
}

TEST(MemoryFile, WithoutSealsIsRefused) {
  const UniqueFd file(::memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(file.get(), kBytes), 0);
  EXPECT_THROW(require_memory_file(file.get(), kBytes), Error);
}

TEST(MemoryFile, ClosedDescriptorIsRefused) {
  EXPECT_THROW(require_memory_file(-1, kBytes), Error);
}

}  // namespace
}  // namespace moelink
