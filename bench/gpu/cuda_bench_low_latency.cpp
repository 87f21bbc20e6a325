// Starts ranks as processes, which go through all cases together; rank 0 reports.
#include "cuda_bench_low_latency.hpp"

#include <arpa/inet.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>

#include "base/cuda/check.hpp"
#include "low_latency_rank.hpp"

namespace moelink::bench {
namespace {

using Timed = LowLatencyBenchRank::Timed;

constexpr std::chrono::seconds kPatience{60};

const char* name_of(Timed what) {
  switch (what) {
    case Timed::kDispatch:
      return "dispatch";
    case Timed::kCombine:
      return "combine";
    case Timed::kPair:
      return "pair_graph";
  }
  return "";
}

// What rank 0 needs of another rank's times.
std::string packed(const LowLatencyBenchRank::Times& times) {
  std::string blob(1, times.verified ? 1 : 0);
  blob.append(reinterpret_cast<const char*>(times.microseconds.data()),
              times.microseconds.size() * sizeof(double));
  return blob;
}

// Of each launch the slowest rank's time, sorted; `verified` becomes false if a rank's is.
std::vector<double> slowest(const std::vector<std::string>& blobs, bool& verified) {
  std::vector<double> times((blobs.front().size() - 1) / sizeof(double));
  for (const std::string& blob : blobs) {
    verified = verified && blob[0] == 1;
    std::vector<double> one(times.size());
    std::memcpy(one.data(), blob.data() + 1, one.size() * sizeof(double));
    for (std::size_t i = 0; i < times.size(); ++i) times[i] = std::max(times[i], one[i]);
  }
  std::sort(times.begin(), times.end());
  return times;
}

struct Report {
  const Group& group;
  nlohmann::json rows = nlohmann::json::array();
  bool verified = true;

  void add(const LowLatencyCase& one, Timed what, const std::vector<double>& times, bool right) {
    const auto at = [&](double share) {
      return times[static_cast<std::size_t>(share * static_cast<double>(times.size() - 1))];
    };
    const char* const dtype = one.is_fp8 ? "fp8" : "bf16";
    const char* const layout = one.is_per_expert() ? "per_expert" : "per_rank";
    const char* const numerics = one.numerics == CombineNumerics::kExact ? "exact" : "pre_reduced";
    verified = verified && right;
    if (group.rank() != Rank(0)) return;
    rows.push_back({{"op", name_of(what)},
                    {"dtype", dtype},
                    {"layout", layout},
                    {"numerics", numerics},
                    {"ranks", group.num_ranks()},
                    {"tokens", one.tokens},
                    {"hidden", one.hidden},
                    {"experts", one.num_experts},
                    {"topk", one.num_topk},
                    {"sms", one.sms},
                    {"launches", times.size()},
                    {"median_us", at(0.5)},
                    {"p99_us", at(0.99)},
                    {"verified", right}});
    std::cout << fmt::format("{:<11} {:<5} {:<11} {:<12} {:>6} {:>4} {:>8.2f} {:>8.2f}  {}\n",
                             name_of(what), dtype, layout, numerics, one.tokens, one.sms, at(0.5),
                             at(0.99), right ? "yes" : "NO")
              << std::flush;
  }
};

void measure(const Group& group, const LowLatencyCase& one, int num_launches, Report& report) {
  LowLatencyBenchRank rank(group, one);
  const bool right = rank.verify();
  std::vector<Timed> operations{Timed::kCombine, Timed::kPair};
  // A dispatch is the same for all numerics.
  if (one.numerics == CombineNumerics::kExact)
    operations.insert(operations.begin(), Timed::kDispatch);
  for (const Timed what : operations) {
    LowLatencyBenchRank::Times times = rank.time_in_graph(what, num_launches);
    times.verified = times.verified && right;
    bool all_right = true;
    const std::vector<double> sorted = slowest(group.all_gather(packed(times)), all_right);
    report.add(one, what, sorted, all_right);
  }
}

std::vector<LowLatencyCase> cases_of(const LowLatencyOptions& options) {
  std::vector<LowLatencyCase> cases;
  LowLatencyCase one;
  one.hidden = options.hidden;
  one.num_topk = options.num_topk;
  one.num_experts = options.num_experts;
  for (const std::int64_t tokens : options.tokens) {
    one.tokens = tokens;
    for (const int sms : options.sms) {
      one.sms = sms;
      for (const bool is_fp8 : {true, false}) {
        one.is_fp8 = is_fp8;
        one.layout = LowLatencyLayout::kPerExpert;
        for (const auto numerics : {CombineNumerics::kExact, CombineNumerics::kPreReduced}) {
          one.numerics = numerics;
          cases.push_back(one);
        }
        one.layout = LowLatencyLayout::kPerRank;
        one.numerics = CombineNumerics::kExact;
        cases.push_back(one);
      }
    }
  }
  return cases;
}

nlohmann::json document_of(const LowLatencyOptions& options, const Report& report) {
  int count = 0;
  check_cuda(cudaGetDeviceCount(&count), "count the GPUs");
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, 0), "read a GPU's name");
  const std::time_t now = std::time(nullptr);
  char date[16];
  std::strftime(date, sizeof(date), "%F", std::gmtime(&now));
  return {{"machine", fmt::format("{} x {}", count, properties.name)},
          {"date", date},
          {"command", options.command},
          {"rows", report.rows}};
}

int run_rank(const LowLatencyOptions& options, const RendezvousConfig& meeting) {
  try {
    const Group group = Group::connect(meeting, {.timeout = kPatience});
    check_cuda(cudaFree(nullptr), "initialise a device");
    group.barrier();
    Report report{.group = group};
    if (group.rank() == Rank(0)) {
      std::cout << fmt::format("{} ranks, hidden {}, top-{} of {}\n", options.ranks, options.hidden,
                               options.num_topk, options.num_experts)
                << fmt::format("{:<11} {:<5} {:<11} {:<12} {:>6} {:>4} {:>8} {:>8}  {}\n", "op",
                               "dtype", "layout", "numerics", "tokens", "SMs", "median", "p99 us",
                               "ok");
    }
    for (const LowLatencyCase& one : cases_of(options)) {
      measure(group, one, options.num_launches, report);
    }
    if (group.rank() == Rank(0) && !options.output.empty()) {
      std::ofstream(options.output) << document_of(options, report).dump(1) << '\n';
    }
    group.barrier();
    return report.verified ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << fmt::format("rank {}: {}\n", meeting.rank.value(), error.what());
    return 1;
  }
}

std::uint16_t free_port() {
  const int probe = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  if (::bind(probe, any, length) != 0 || ::getsockname(probe, any, &length) != 0) {
    std::cerr << "no free port\n";
  }
  ::close(probe);
  return ntohs(address.sin_port);
}

std::string new_secret() {
  std::random_device random;
  std::string secret;
  for (int i = 0; i < 4; ++i) secret += fmt::format("{:08x}", random());
  return secret;
}

// 0 if all of them ended well; the first that does not ends the others.
int wait_for(std::vector<pid_t> processes) {
  int worst = 0;
  while (!processes.empty()) {
    int status = 0;
    const pid_t ended = ::wait(&status);
    if (ended < 0) return 1;
    std::erase(processes, ended);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
    worst = 1;
    // Those that report a wrong result go on together; one that has failed is waited for in vain.
    if (!WIFEXITED(status)) {
      for (const pid_t process : processes) ::kill(process, SIGKILL);
    }
  }
  return worst;
}

}  // namespace

int run_low_latency_bench(const LowLatencyOptions& options) {
  RendezvousConfig meeting;
  meeting.num_ranks = options.ranks;
  meeting.port = free_port();
  meeting.secret = new_secret();
  std::vector<pid_t> processes;
  for (int rank = 0; rank < options.ranks; ++rank) {
    const pid_t process = ::fork();
    if (process == 0) {
      meeting.rank = Rank(rank);
      const int code = run_rank(options, meeting);
      std::cout.flush();
      ::_exit(code);
    }
    processes.push_back(process);
  }
  return wait_for(std::move(processes));
}

}  // namespace moelink::bench
