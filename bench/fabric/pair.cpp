// Forks and joins.
#include "pair.hpp"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <utility>

namespace moelink::bench {

namespace {

void write_text(int fd, const std::string& text) {
  const std::uint64_t size = text.size();
  std::string frame(reinterpret_cast<const char*>(&size), sizeof(size));
  frame += text;
  for (std::size_t done = 0; done < frame.size();) {
    const ssize_t written = ::write(fd, frame.data() + done, frame.size() - done);
    if (written <= 0) throw std::runtime_error("the other process has gone");
    done += static_cast<std::size_t>(written);
  }
}

void read_bytes(int fd, char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t got = ::read(fd, data, size);
    if (got <= 0) throw std::runtime_error("the other process has gone");
    data += got;
    size -= static_cast<std::size_t>(got);
  }
}

std::string read_text(int fd) {
  std::uint64_t size = 0;
  read_bytes(fd, reinterpret_cast<char*>(&size), sizeof(size));
  std::string text(size, '\0');
  read_bytes(fd, text.data(), text.size());
  return text;
}

std::pair<UniqueFd, UniqueFd> make_sockets() {
  std::array<int, 2> ends{-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()) != 0) {
    throw std::runtime_error("socketpair failed");
  }
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

[[noreturn]] void run_rank(Pair pair, const UniqueFd* report,
                           const std::function<std::string(Pair&)>& body) {
  int code = 0;
  try {
    const std::string result = body(pair);
    if (report != nullptr) write_text(report->get(), result);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rank %d: %s\n", pair.rank(), error.what());
    code = 1;
  }
  std::fflush(nullptr);
  ::_exit(code);
}

}  // namespace

std::vector<std::string> Pair::exchange(const std::string& own) {
  write_text(socket_.get(), own);
  std::string other = read_text(socket_.get());
  if (rank_ == 0) return {own, std::move(other)};
  return {std::move(other), own};
}

std::string run_pair(const std::function<std::string(Pair&)>& body) {
  std::fflush(nullptr);
  auto [first, second] = make_sockets();
  auto [result, report] = make_sockets();
  std::array<pid_t, 2> children{};
  for (int rank = 0; rank < 2; ++rank) {
    children[static_cast<std::size_t>(rank)] = ::fork();
    if (children[static_cast<std::size_t>(rank)] != 0) continue;
    UniqueFd own = std::move(rank == 0 ? first : second);
    (rank == 0 ? second : first).reset();
    run_rank(Pair(rank, std::move(own)), rank == 0 ? &report : nullptr, body);
  }
  first.reset();
  second.reset();
  report.reset();
  std::string text;
  try {
    text = read_text(result.get());
  } catch (const std::runtime_error&) {
    text.clear();  // the rank says why
  }
  bool failed = text.empty();
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    failed |= status != 0;
  }
  if (failed) throw std::runtime_error("a process of the pair failed");
  return text;
}

}  // namespace moelink::bench
