// Makes and checks sealed memory files.
#include "symm/memfd/memory_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/check.hpp"
#include "symm/address_range.hpp"

namespace moelink {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

// Kernels since 6.3 may insist on it, older ones do not know it.
constexpr unsigned kNotExecutable = 0x0008U;

int create_file() {
  constexpr unsigned kFlags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  const int fd = ::memfd_create("moelink", kFlags | kNotExecutable);
  return fd < 0 && errno == EINVAL ? ::memfd_create("moelink", kFlags) : fd;
}

}  // namespace

UniqueFd make_memory_file(std::size_t bytes) {
  require_file_size_allowed(bytes);
  UniqueFd file(create_file());
  if (!file.valid()) fail_with_limits(errno, "create a memory file", bytes);
  if (::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) {
    fail_with_limits(errno, "size a memory file", bytes);
  }
  if (::fcntl(file.get(), F_ADD_SEALS, kSeals) != 0) {
    fail_errno(errno, "cannot seal a memory file of {} bytes", bytes);
  }
  return file;
}

void require_memory_file(int fd, std::size_t bytes) {
  struct stat status{};
  const bool known = ::fstat(fd, &status) == 0;
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (!known || static_cast<std::size_t>(status.st_size) != bytes || seals < 0 ||
      (seals & kSeals) != kSeals) {
    fail(ErrorCode::kInternal,
         "received a descriptor of {} bytes with seals {}, expected a memory file of {} bytes with "
         "seals {}",
         status.st_size, seals, bytes, kSeals);
  }
}

}  // namespace moelink
