// Runs a function in several processes at once, as the ranks of a group, and reports how each
// ended.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/check.hpp"
#include "base/unique_fd.hpp"
#include "bootstrap/bootstrap.hpp"
#include "conformance/test_timeout.hpp"

namespace moelink::test {

struct RankOutcome {
  int exit_code = 0;  // -1 if a signal ended it
  int signal = 0;     // the signal that ended it, or 0
  std::string error;  // what() of the exception that left the function, or empty

  bool succeeded() const { return exit_code == 0 && signal == 0; }
};

// Ends the calling process as the system's out-of-memory killer would.
[[noreturn]] inline void die_by_sigkill() {
  ::kill(::getpid(), SIGKILL);
  for (;;) ::pause();
}

// A message between a rank and the test process: kind, size, bytes.
struct Frame {
  enum Kind : std::uint8_t { kGather, kGathered, kLost, kError };

  Kind kind = kGather;
  std::string bytes;
};

inline bool write_all(int fd, const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t written = ::send(fd, data, size, MSG_NOSIGNAL);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    data += written;
    size -= static_cast<std::size_t>(written);
  }
  return true;
}

inline bool read_all(int fd, char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t got = ::recv(fd, data, size, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    data += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

inline std::string encode_size(std::size_t size) {
  return std::string(reinterpret_cast<const char*>(&size), sizeof(size));
}

inline bool write_frame(int fd, const Frame& frame) {
  const std::string text =
      static_cast<char>(frame.kind) + encode_size(frame.bytes.size()) + frame.bytes;
  return write_all(fd, text.data(), text.size());
}

// Nothing if the other side has gone.
inline std::optional<Frame> read_frame(int fd) {
  char kind = 0;
  std::size_t size = 0;
  if (!read_all(fd, &kind, 1) || !read_all(fd, reinterpret_cast<char*>(&size), sizeof(size))) {
    return std::nullopt;
  }
  Frame frame{static_cast<Frame::Kind>(kind), std::string(size, '\0')};
  if (!read_all(fd, frame.bytes.data(), size)) return std::nullopt;
  return frame;
}

inline std::string join_blobs(const std::vector<std::string>& blobs) {
  std::string joined;
  for (const std::string& blob : blobs) joined += encode_size(blob.size()) + blob;
  return joined;
}

inline std::vector<std::string> split_blobs(const std::string& joined) {
  std::vector<std::string> blobs;
  for (std::size_t at = 0; at < joined.size();) {
    std::size_t size = 0;
    joined.copy(reinterpret_cast<char*>(&size), sizeof(size), at);
    blobs.push_back(joined.substr(at + sizeof(size), size));
    at += sizeof(size) + size;
  }
  return blobs;
}

// A rank's side: every all-gather goes through the test process.
class ForkedBootstrap final : public Bootstrap {
 public:
  ForkedBootstrap(Rank rank, int num_ranks, UniqueFd socket)
      : rank_(rank), num_ranks_(num_ranks), socket_(std::move(socket)) {}

  Rank rank() const override { return rank_; }
  int num_ranks() const override { return num_ranks_; }

  std::vector<std::string> all_gather(const std::string& blob, const char* what,
                                      const Deadline& deadline) override {
    write_frame(socket_.get(), {Frame::kGather, blob});
    wait_for_answer(what, deadline);
    const std::optional<Frame> answer = read_frame(socket_.get());
    if (answer && answer->kind == Frame::kGathered) return split_blobs(answer->bytes);
    const std::string lost = answer ? answer->bytes : std::string("of the test process");
    fail(ErrorCode::kPeerLost, "{}: rank {} has gone", what, lost);
  }

  void report_error(const std::string& text) { write_frame(socket_.get(), {Frame::kError, text}); }

 private:
  void wait_for_answer(const char* what, const Deadline& deadline) {
    pollfd entry{socket_.get(), POLLIN, 0};
    while (!deadline.expired()) {
      const auto left = deadline.remaining(std::chrono::seconds(1));
      const auto pause = std::chrono::ceil<std::chrono::milliseconds>(left);
      if (::poll(&entry, 1, static_cast<int>(pause.count())) > 0) return;
    }
    fail(ErrorCode::kTimeout, "{}: no answer within {} ms", what, deadline.span().count());
  }

  Rank rank_;
  int num_ranks_;
  UniqueFd socket_;
};

// The test process's side: starts the ranks, serves their all-gathers, collects their ends.
class ForkedRanks {
 public:
  using Body = std::function<void(Bootstrap&)>;

  ForkedRanks(int num_ranks, const Body& body) {
    std::fflush(nullptr);  // or each rank would print what is still buffered
    for (int rank = 0; rank < num_ranks; ++rank) start(rank, num_ranks, body);
  }

  // Kills the ranks that have not ended after `limit`.
  std::vector<RankOutcome> serve(std::chrono::milliseconds limit) {
    const Deadline deadline = Deadline::after(limit);
    while (num_running() > 0) {
      if (deadline.expired()) kill_all();
      serve_sockets();
      reap_ended();
      answer();
    }
    std::vector<RankOutcome> outcomes;
    for (Child& child : children_) outcomes.push_back(std::move(child.outcome));
    return outcomes;
  }

 private:
  struct Child {
    pid_t process = 0;
    UniqueFd socket;
    bool running = true;
    std::optional<std::string> blob;  // of the open all-gather
    RankOutcome outcome;
  };

  void start(int rank, int num_ranks, const Body& body) {
    int ends[2] = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
      throw std::runtime_error("socketpair failed");
    }
    UniqueFd own(ends[0]);
    UniqueFd theirs(ends[1]);
    const pid_t process = ::fork();
    if (process < 0) throw std::runtime_error("fork failed");
    if (process == 0) {
      children_.clear();
      own.reset();
      run_and_exit(ForkedBootstrap(Rank(rank), num_ranks, std::move(theirs)), body);
    }
    children_.emplace_back();
    children_.back().process = process;
    children_.back().socket = std::move(own);
  }

  [[noreturn]] static void run_and_exit(ForkedBootstrap bootstrap, const Body& body) {
    int exit_code = 0;
    try {
      body(bootstrap);
    } catch (const std::exception& error) {
      bootstrap.report_error(error.what());
      exit_code = 1;
    }
    std::fflush(nullptr);
    ::_exit(exit_code);
  }

  int num_running() const {
    int count = 0;
    for (const Child& child : children_) count += child.running ? 1 : 0;
    return count;
  }

  void kill_all() {
    for (Child& child : children_) {
      if (!child.running) continue;
      child.outcome.error += "[killed by the test's time limit]";
      ::kill(child.process, SIGKILL);
    }
  }

  void serve_sockets() {
    std::vector<pollfd> entries;
    for (const Child& child : children_) entries.push_back({child.socket.get(), POLLIN, 0});
    constexpr int kPauseMs = 20;  // then look for ended processes again
    ::poll(entries.data(), entries.size(), kPauseMs);
    for (std::size_t i = 0; i < children_.size(); ++i) {
      if (entries[i].revents != 0) take_frame(children_[i]);
    }
  }

  static void take_frame(Child& child) {
    std::optional<Frame> frame = read_frame(child.socket.get());
    if (!frame) {
      child.socket.reset();
    } else if (frame->kind == Frame::kGather) {
      child.blob = std::move(frame->bytes);
    } else {
      child.outcome.error = std::move(frame->bytes);
    }
  }

  void reap_ended() {
    for (Child& child : children_) {
      int status = 0;
      if (!child.running || ::waitpid(child.process, &status, WNOHANG) != child.process) continue;
      child.running = false;
      child.outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
      child.outcome.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
      drain(child);
    }
  }

  // A process that the rank forked may hold its socket, so an end of file need not come.
  static void drain(Child& child) {
    pollfd entry{child.socket.get(), POLLIN, 0};
    while (child.socket.valid() && ::poll(&entry, 1, 0) > 0) take_frame(child);
    child.socket.reset();
  }

  // Once a rank has ended, by whatever cause, no further all-gather can complete. The first one
  // that ended is named: others may have ended because of it.
  void answer() {
    for (std::size_t i = 0; i < children_.size() && !first_gone_; ++i) {
      if (!children_[i].running) first_gone_ = i;
    }
    if (first_gone_) return answer_waiting({Frame::kLost, std::to_string(*first_gone_)});
    std::vector<std::string> blobs;
    for (const Child& child : children_) {
      if (!child.blob) return;
      blobs.push_back(*child.blob);
    }
    answer_waiting({Frame::kGathered, join_blobs(blobs)});
  }

  void answer_waiting(const Frame& answer) {
    for (Child& child : children_) {
      if (child.blob && child.running) write_frame(child.socket.get(), answer);
      child.blob.reset();
    }
  }

  std::vector<Child> children_;
  std::optional<std::size_t> first_gone_;
};

// `body` runs in `num_ranks` forked processes; what it throws ends the rank and is reported.
// Element i is how rank i ended. To be called while the test process has one thread.
inline std::vector<RankOutcome> run_forked_ranks(
    int num_ranks, const std::function<void(Bootstrap&)>& body,
    std::chrono::milliseconds limit = test_timeout(std::chrono::seconds(50))) {
  return ForkedRanks(num_ranks, body).serve(limit);
}

// The same as texts: what left each rank, or how it ended if that was otherwise.
inline std::vector<std::string> run_process_ranks(int num_ranks,
                                                  const std::function<void(Bootstrap&)>& body) {
  std::vector<std::string> errors;
  for (const RankOutcome& outcome : run_forked_ranks(num_ranks, body)) {
    errors.push_back(
        outcome.succeeded() || !outcome.error.empty()
            ? outcome.error
            : fmt::format("exit code {}, signal {}", outcome.exit_code, outcome.signal));
  }
  return errors;
}

}  // namespace moelink::test
