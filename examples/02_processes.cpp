// Ranks as processes: they meet at a port, prove that they know the job's secret, and share memory.
#include "moelink/moelink.hpp"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <vector>

namespace {

constexpr int kRanks = 3;
constexpr std::int64_t kTokens = 100;
constexpr std::int64_t kHidden = 128;

// Your launcher would choose the port; here the system names one that is free.
std::uint16_t free_port() {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  const bool named = ::bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                     ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  ::close(listener);
  return named ? ntohs(address.sin_port) : std::uint16_t{0};
}

// Under torchrun, mpirun or Slurm: moelink::Group::from_environment() instead of connect().
moelink::Group join(int rank, std::uint16_t port) {
  moelink::RendezvousConfig config;
  config.rank = moelink::Rank(rank);
  config.num_ranks = kRanks;
  config.port = port;
  config.secret = "known to the ranks of this job only";
  return moelink::Group::connect(config);
}

// All tokens go to the expert of the next rank, which returns them with its rank added.
bool run_rank(int rank, std::uint16_t port) {
  moelink::Buffer buffer(join(rank, port));
  moelink::Tensor x = moelink::make_host_tensor(moelink::DType::kFloat32, {kTokens, kHidden});
  moelink::Tensor topk_idx = moelink::make_host_tensor(moelink::DType::kInt64, {kTokens, 1});
  const int next = (rank + 1) % kRanks;
  for (std::int64_t t = 0; t < kTokens; ++t) topk_idx.view.as<std::int64_t>()[t] = next;
  for (std::int64_t i = 0; i < x.view.num_elements(); ++i) {
    x.view.as<float>()[i] = static_cast<float>(i);
  }
  const moelink::DispatchResult received =
      buffer.dispatch({.x = x.view, .topk_idx = topk_idx.view, .num_experts = kRanks});
  float* const rows = received.recv_x.view.as<float>();
  for (std::int64_t i = 0; i < received.recv_x.view.num_elements(); ++i) {
    rows[i] += static_cast<float>(rank);
  }
  const moelink::CombineResult result =
      buffer.combine({.x = received.recv_x.view, .handle = received.handle});
  bool correct = received.recv_x.view.shape[0] == kTokens;
  for (std::int64_t i = 0; i < x.view.num_elements(); ++i) {
    correct = correct && result.combined_x.view.as<float>()[i] == static_cast<float>(i + next);
  }
  buffer.close();
  return correct;
}

int exit_code_of_rank(int rank, std::uint16_t port) {
  try {
    return run_rank(rank, port) ? 0 : 1;
  } catch (const std::exception& error) {  // every failure names the rank, the stage and the peer
    std::fprintf(stderr, "rank %d: %s\n", rank, error.what());
    return 2;
  }
}

}  // namespace

int main() {
  const std::uint16_t port = free_port();
  std::vector<pid_t> processes;
  for (int rank = 0; rank < kRanks; ++rank) {
    const pid_t process = ::fork();
    if (process == 0) ::_exit(exit_code_of_rank(rank, port));
    processes.push_back(process);
  }
  int num_failed = 0;
  for (const pid_t process : processes) {
    int status = 0;
    ::waitpid(process, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) ++num_failed;
  }
  if (num_failed > 0) return 1;
  std::printf("%d processes have exchanged %d tokens each\n", kRanks, static_cast<int>(kTokens));
  return 0;
}
