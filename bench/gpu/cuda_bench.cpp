// GPU time of the high-throughput operations, ranks being threads of this process.
//
//   moelink_cuda_bench [--ranks 2] [--tokens 4096] [--hidden 7168] [--sms 4,8,16] [--output F]
//                      [--only combine_foreign]
//   moelink_cuda_bench --mode ll [--tokens 128,16] [--experts 288] [--topk 8] [--long] ...
//
// The second form is for the low latency operations (cuda_bench_low_latency.hpp).
// Operations are queued back to back, so that no launch is waited for; an operation's time is that
// of its slowest rank, from the end of the one before. All results are checked on the host.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <fstream>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/cuda/owners.hpp"
#include "cuda_bench_low_latency.hpp"
#include "cuda_bench_rank.hpp"

namespace moelink::bench {
namespace {

// Up to so many, the host's part of an operation takes longer than the GPU's.
constexpr std::int64_t kFewTokens = 512;
constexpr int kManyLaunches = 1000;  // enough for a 99th percentile

struct Options {
  int ranks = 2;
  std::int64_t tokens = 4096;
  std::int64_t hidden = 7168;
  std::vector<int> sms{4, 8, 12, 16, 24, 32, 64};
  std::string only;  // the operation to measure; empty: all
  std::string output;
};

std::vector<int> numbers_of(const std::string& list) {
  std::vector<int> numbers;
  for (std::size_t at = 0; at < list.size();) {
    std::size_t used = 0;
    numbers.push_back(std::stoi(list.substr(at), &used));
    at += used + 1;
  }
  return numbers;
}

Options parse(int count, char** arguments) {
  Options options;
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string name = arguments[i];
    const std::string value = arguments[i + 1];
    if (name == "--ranks") options.ranks = std::stoi(value);
    if (name == "--tokens") options.tokens = std::stoll(value);
    if (name == "--hidden") options.hidden = std::stoll(value);
    if (name == "--sms") options.sms = numbers_of(value);
    if (name == "--only") options.only = value;
    if (name == "--output") options.output = value;
  }
  return options;
}

LowLatencyOptions parse_low_latency(int count, char** arguments) {
  LowLatencyOptions options;
  for (int i = 1; i < count; ++i) {
    const std::string name = arguments[i];
    const std::string value = i + 1 < count ? arguments[i + 1] : "";
    if (name == "--ranks") options.ranks = std::stoi(value);
    if (name == "--hidden") options.hidden = std::stoll(value);
    if (name == "--experts") options.num_experts = std::stoi(value);
    if (name == "--topk") options.num_topk = std::stoi(value);
    if (name == "--sms") options.sms = numbers_of(value);
    if (name == "--output") options.output = value;
    if (name == "--long") options.num_launches = kManyLaunches;
    if (name == "--tokens") {
      const std::vector<int> tokens = numbers_of(value);
      options.tokens.assign(tokens.begin(), tokens.end());
    }
  }
  return options;
}

bool is_low_latency(int count, char** arguments) {
  for (int i = 1; i + 1 < count; ++i) {
    if (std::string(arguments[i]) == "--mode") return std::string(arguments[i + 1]) == "ll";
  }
  return false;
}

std::string command_of(int count, char** arguments) {
  std::string command = "moelink_cuda_bench";
  for (int i = 1; i < count; ++i) command += std::string(" ") + arguments[i];
  return command;
}

// Runs `body` as every rank; the first exception ends the program with its text.
template <class Body>
void run_ranks(int num_ranks, const Body& body) {
  std::vector<Group> groups = Group::of_threads(num_ranks);
  std::vector<std::thread> threads;
  for (Group& group : groups) {
    threads.emplace_back([&group, &body] {
      try {
        body(group);
      } catch (const std::exception& error) {
        std::cerr << "rank " << group.rank().value() << ": " << error.what() << '\n';
        std::_Exit(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Of each repetition the slowest rank's time; `of_rank` is [rank][repetition].
std::vector<double> slowest(const std::vector<std::vector<double>>& of_rank) {
  std::vector<double> times(of_rank.front().size());
  for (const std::vector<double>& one : of_rank) {
    for (std::size_t i = 0; i < times.size(); ++i) times[i] = std::max(times[i], one[i]);
  }
  std::sort(times.begin(), times.end());
  return times;
}

nlohmann::json measure(const Options& options, const Case& one) {
  std::vector<std::vector<double>> times(static_cast<std::size_t>(options.ranks));
  std::vector<std::vector<double>> floors(times.size());
  std::vector<std::vector<double>> graph_times(times.size());
  bool verified = true;
  std::mutex mutex;
  run_ranks(options.ranks, [&](Group& group) {
    BenchRank rank(group, one);
    const bool right = rank.verify();
    times[group.rank().index()] = rank.time_operation();
    if (one.tokens <= kFewTokens) graph_times[group.rank().index()] = rank.time_in_graph();
    floors[group.rank().index()] = rank.time_floor();
    const std::lock_guard lock(mutex);
    verified = verified && right;
  });
  std::string stages;
  Case clocked = one;
  clocked.clock = StageClock::kOn;
  run_ranks(options.ranks, [&](Group& group) {
    BenchRank rank(group, clocked);
    rank.verify();
    std::string text;
    for (int i = 0; i < 5; ++i) text = rank.stages();
    if (group.rank() == Rank(0)) stages = text;
  });
  const std::vector<double> sorted = slowest(times);
  const auto at = [&](double share) {
    return sorted[static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1))];
  };
  const std::vector<double> floor = slowest(floors);
  nlohmann::json row{{"op", one.operation_name()},
                     {"dtype", one.dtype_label()},
                     {"layout", one.layout_name()},
                     {"ranks", options.ranks},
                     {"tokens", one.tokens},
                     {"hidden", one.hidden},
                     {"sms", one.sms},
                     {"median_us", at(0.5)},
                     {"p99_us", at(0.99)},
                     {"floor_us", floor[floor.size() / 2]},
                     {"verified", verified}};
  std::string in_graph = "-";
  if (one.tokens <= kFewTokens) {
    const std::vector<double> graph = slowest(graph_times);
    row["graph_median_us"] = graph[graph.size() / 2];
    in_graph = fmt::format("{:.1f}", graph[graph.size() / 2]);
  }
  row["stages_us"] = stages;
  std::cout << fmt::format(
      "{:<16} {:<5} {:<13} {:>6} {:>4} {:>8.1f} {:>8.1f} {:>8} {:>8.1f}  {:<4} {}\n",
      one.operation_name(), one.dtype_label(), one.layout_name(), one.tokens, one.sms, at(0.5),
      at(0.99), in_graph, floor[floor.size() / 2], verified ? "yes" : "NO", stages);
  std::cout.flush();
  return row;
}

std::vector<Case> cases_of(const Options& options) {
  std::vector<Case> cases;
  const auto add = [&](Case one) {
    one.hidden = options.hidden;
    if (options.only.empty() || options.only == one.operation_name()) cases.push_back(one);
  };
  for (const int sms : options.sms) {
    for (const DType dtype : {DType::kFloat8E4M3, DType::kBFloat16}) {
      add({.kind = Case::Kind::kDispatch, .dtype = dtype, .tokens = options.tokens, .sms = sms});
    }
    add({.kind = Case::Kind::kCombine, .tokens = options.tokens, .sms = sms});
  }
  const int sms = 16;
  add({.kind = Case::Kind::kCachedDispatch,
       .dtype = DType::kFloat8E4M3,
       .tokens = options.tokens,
       .sms = sms});
  for (const Layout layout : {Layout::kCompact, Layout::kExpertMajor}) {
    add({.kind = Case::Kind::kCombineForeign,
         .layout = layout,
         .tokens = options.tokens,
         .sms = sms});
  }
  add({.kind = Case::Kind::kDispatch,
       .dtype = DType::kFloat8E4M3,
       .layout = Layout::kExpertMajor,
       .tokens = options.tokens,
       .sms = sms});
  for (const std::int64_t tokens : {16, 128}) {
    add({.kind = Case::Kind::kDispatch, .dtype = DType::kFloat8E4M3, .tokens = tokens, .sms = sms});
    add({.kind = Case::Kind::kCombine, .tokens = tokens, .sms = sms});
  }
  return cases;
}

std::string machine_text() {
  int count = 0;
  check_cuda(cudaGetDeviceCount(&count), "count the GPUs");
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, 0), "read a GPU's name");
  return fmt::format("{} x {}", count, properties.name);
}

std::string today() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  char text[16];
  std::strftime(text, sizeof(text), "%F", std::gmtime(&now));
  return text;
}

}  // namespace
}  // namespace moelink::bench

int main(int count, char** arguments) {
  using namespace moelink::bench;
  ::setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  ::setenv("CUDA_MODULE_LOADING", "EAGER", 0);
  if (is_low_latency(count, arguments)) {
    LowLatencyOptions options = parse_low_latency(count, arguments);
    options.command = command_of(count, arguments);
    return run_low_latency_bench(options);
  }
  const Options options = parse(count, arguments);
  nlohmann::json document{{"machine", machine_text()}, {"date", today()}};
  document["command"] = command_of(count, arguments);
  std::cout << fmt::format("{}, {} ranks, hidden {}\n", machine_text(), options.ranks,
                           options.hidden);
  std::cout << fmt::format("{:<16} {:<5} {:<13} {:>6} {:>4} {:>8} {:>8} {:>8} {:>8}  {:<4} {}\n",
                           "op", "dtype", "layout", "tokens", "SMs", "median", "p99", "graph",
                           "floor us", "ok", "stages of one operation, us");
  bool verified = true;
  for (const Case& one : cases_of(options)) {
    document["rows"].push_back(measure(options, one));
    verified = verified && document["rows"].back()["verified"].get<bool>();
  }
  if (!options.output.empty()) std::ofstream(options.output) << document.dump(1) << '\n';
  return verified ? 0 : 1;
}
