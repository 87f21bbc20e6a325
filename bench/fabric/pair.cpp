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

using Body = std::function<std::string(Pair& pair, int number)>;

struct Job {
  int num_pairs;
  const Body& body;
  UniqueFd result;
  UniqueFd report;  // the other end
};

[[noreturn]] void run_process(Job& job, int number, Pair pair) {
  int code = 0;
  job.result.reset();
  if (number != 0) job.report.reset();
  try {
    const std::string result = job.body(pair, number);
    if (number == 0) write_text(job.report.get(), result);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "process %d: %s\n", number, error.what());
    code = 1;
  }
  std::fflush(nullptr);
  ::_exit(code);
}

// Starts both processes of a pair.
void start_pair(Job& job, int index, std::vector<pid_t>& children) {
  auto [first, second] = make_sockets();
  for (int side = 0; side < 2; ++side) {
    children.push_back(::fork());
    if (children.back() != 0) continue;
    UniqueFd own = std::move(side == 0 ? first : second);
    (side == 0 ? second : first).reset();
    run_process(job, index + side * job.num_pairs, Pair(side, std::move(own)));
  }
}

}  // namespace

std::vector<std::string> Pair::exchange(const std::string& own) {
  write_text(socket_.get(), own);
  std::string other = read_text(socket_.get());
  if (rank_ == 0) return {own, std::move(other)};
  return {std::move(other), own};
}

std::string run_pairs(int num_pairs, const Body& body) {
  std::fflush(nullptr);
  auto [result, report] = make_sockets();
  Job job{num_pairs, body, std::move(result), std::move(report)};
  std::vector<pid_t> children;
  for (int i = 0; i < num_pairs; ++i) start_pair(job, i, children);
  job.report.reset();
  std::string text;
  try {
    text = read_text(job.result.get());
  } catch (const std::runtime_error&) {
    text.clear();  // the process says why
  }
  bool failed = text.empty();
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    failed |= status != 0;
  }
  if (failed) throw std::runtime_error("a process failed");
  return text;
}

std::string run_pair(const std::function<std::string(Pair&)>& body) {
  return run_pairs(1, [&](Pair& pair, int) { return body(pair); });
}

}  // namespace moelink::bench
