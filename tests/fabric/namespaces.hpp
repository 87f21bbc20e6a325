// Hosts that are network namespaces of this machine, each with one card in one common network.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "base/check.hpp"
#include "base/unique_fd.hpp"

namespace moelink::test {

// In the namespace of the caller. Returns what the command prints; throws that if it fails.
inline std::string run_command(const std::string& command) {
  const std::string with_path = "PATH=$PATH:/usr/sbin:/sbin; { " + command + "; } 2>&1";
  std::FILE* const pipe = ::popen(with_path.c_str(), "re");
  if (pipe == nullptr) throw std::runtime_error("cannot start: " + command);
  std::string output;
  for (int next = std::fgetc(pipe); next != EOF; next = std::fgetc(pipe)) {
    output.push_back(static_cast<char>(next));
  }
  if (::pclose(pipe) == 0) return output;
  std::ranges::replace(output, '\n', ' ');
  throw std::runtime_error(fmt::format("'{}' failed: {}", command, output));
}

// It has no name in the file system, so the kernel removes it with the last process that holds the
// descriptor or is in it: also when a test fails, or is killed.
class NetworkNamespace {
 public:
  NetworkNamespace() {
    const UniqueFd home = open_current();
    if (::unshare(CLONE_NEWNET) != 0) throw_errno("make a network namespace");
    descriptor_ = open_current();
    enter(home);
  }

  // For the calling thread, for good: in a process that was forked for it.
  void enter() const { enter(descriptor_); }

  std::string run(const std::string& command) const {
    const Visit visit(*this);
    return run_command(command);
  }

  // As `ip` wants to have it.
  std::string path() const { return fmt::format("/proc/{}/fd/{}", ::getpid(), descriptor_.get()); }

 private:
  class Visit {
   public:
    explicit Visit(const NetworkNamespace& there) : home_(open_current()) { there.enter(); }
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;
    ~Visit() { ::setns(home_.get(), CLONE_NEWNET); }

   private:
    UniqueFd home_;
  };

  [[noreturn]] static void throw_errno(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
  }

  static UniqueFd open_current() {
    UniqueFd current(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    if (!current.valid()) throw_errno("open the own network namespace");
    return current;
  }

  static void enter(const UniqueFd& there) {
    if (::setns(there.get(), CLONE_NEWNET) != 0) throw_errno("enter a network namespace");
  }

  UniqueFd descriptor_;
};

// Hosts around one bridge, which has a namespace of its own: nothing shows on the machine itself.
class HostNetwork {
 public:
  explicit HostNetwork(int num_hosts) {
    bridge_.run("ip link add bridge0 type bridge && ip link set bridge0 up");
    for (int host = 0; host < num_hosts; ++host) add_host();
  }

  static std::string address(int host) { return fmt::format("10.77.0.{}", host + 1); }

  void enter(int host) const { at(host).enter(); }
  std::string run(int host, const std::string& command) const { return at(host).run(command); }

 private:
  const NetworkNamespace& at(int host) const { return hosts_.at(static_cast<std::size_t>(host)); }

  void add_host() {
    const int host = static_cast<int>(hosts_.size());
    const NetworkNamespace& made = hosts_.emplace_back();
    bridge_.run(
        fmt::format("ip link add port{0} type veth peer name eth0 netns {1} && "
                    "ip link set port{0} master bridge0 up",
                    host, made.path()));
    made.run(
        fmt::format("ip address add {}/24 dev eth0 && ip link set lo up && "
                    "ip link set eth0 up",
                    address(host)));
  }

  NetworkNamespace bridge_;
  std::vector<NetworkNamespace> hosts_;
};

// Why this process cannot make hosts; empty if it can.
inline std::string why_no_hosts() {
  if (::geteuid() != 0) return "network namespaces need root";
  try {
    run_command("command -v ip && command -v tc");
  } catch (const std::runtime_error&) {
    return "there is no ip or no tc (package iproute2)";
  }
  try {
    NetworkNamespace().run("ip link add probe0 type bridge && ip link add probe1 type veth");
  } catch (const std::runtime_error& error) {  // no right to it, or the kernel has no such thing
    return error.what();
  }
  return {};
}

}  // namespace moelink::test
