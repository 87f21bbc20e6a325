// Ownership of file descriptors.
#include "base/unique_fd.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>

namespace moelink {
namespace {

int open_descriptor() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) != -1; }

TEST(UniqueFd, ClosesWhatItOwnsOnce) {
  const int fd = open_descriptor();
  {
    const UniqueFd owner(fd);
    EXPECT_TRUE(owner.valid());
    EXPECT_EQ(owner.get(), fd);
    EXPECT_TRUE(is_open(fd));
  }
  EXPECT_FALSE(is_open(fd));
}

TEST(UniqueFd, MovedFromOwnsNothing) {
  const int fd = open_descriptor();
  UniqueFd first(fd);
  const UniqueFd second(std::move(first));
  first.reset();
  EXPECT_TRUE(is_open(fd));
  EXPECT_EQ(second.get(), fd);
}

TEST(UniqueFd, AssignedOneKeepsTheNewDescriptorOpen) {
  const int kept = open_descriptor();
  const int replaced = open_descriptor();
  UniqueFd owner(replaced);
  {
    UniqueFd other(kept);
    owner = std::move(other);
  }
  EXPECT_EQ(owner.get(), kept);
  EXPECT_TRUE(is_open(kept));
  EXPECT_FALSE(is_open(replaced));
}

TEST(UniqueFd, ResetClosesAndLeavesItEmpty) {
  UniqueFd owner(open_descriptor());
  const int fd = owner.get();
  owner.reset();
  owner.reset();
  EXPECT_FALSE(owner.valid());
  EXPECT_FALSE(is_open(fd));
}

}  // namespace
}  // namespace moelink
