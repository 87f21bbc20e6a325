// Measures Buffer between processes of two emulated nodes beside bare calls of libfabric, taking
// turns in one run. Prints a table; writes JSON to the file that is its first argument; further
// arguments: the providers of libfabric to measure over.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "base/unique_fd.hpp"
#include "node_rank.hpp"

namespace moelink::bench {
namespace {

constexpr int kNumRounds = 9;  // the median counts
constexpr int kNumSmallRounds = 15;
constexpr int kNumSmallTimes = 500;

std::uint16_t free_port() {
  const UniqueFd probe(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  if (::bind(probe.get(), any, size) != 0 || ::getsockname(probe.get(), any, &size) != 0) {
    throw std::runtime_error("no free port");
  }
  return ntohs(address.sin_port);
}

std::string to_text(const Samples& samples) {
  std::string text;
  for (const auto& [name, of_name] : samples) {
    for (const Sample& sample : of_name) {
      text += fmt::format("{} {} {}\n", name, sample.us, sample.bytes);
    }
  }
  return text;
}

Samples from_text(const std::string& text) {
  Samples samples;
  std::istringstream stream(text);
  std::string name;
  Sample sample;
  while (stream >> name >> sample.us >> sample.bytes) samples[name].push_back(sample);
  return samples;
}

// The first round, which connects and touches memory, does not count.
std::string run_large(Pair& pair, int number, const NodeJob& job) {
  NodeRank rank(pair, number, job);
  Samples samples;
  for (int round = 0; round <= kNumRounds; ++round) {
    if (round == 1) samples.clear();
    for (const auto& [path, name] : {std::pair(NetworkPath::kHierarchical, "hierarchical"),
                                     std::pair(NetworkPath::kDirect, "direct")}) {
      const Sample dispatched = rank.dispatch(path);
      samples[fmt::format("{}-dispatch", name)].push_back(dispatched);
      if (path == NetworkPath::kHierarchical) {
        samples["raw"].push_back(rank.exchange_raw(kTokensBytes, 0));
      }
      samples[fmt::format("{}-combine", name)].push_back(rank.combine(path));
      if (path == NetworkPath::kDirect) {
        samples["raw-and-copy"].push_back(
            rank.exchange_raw(kTokensBytes, rank.num_received_bytes()));
      }
    }
  }
  rank.close();
  return to_text(samples);
}

std::string run_small(Pair& pair, int number, const NodeJob& job) {
  NodeRank rank(pair, number, job);
  Samples samples;
  for (int round = 0; round <= kNumSmallRounds; ++round) {
    if (round == 1) samples.clear();
    samples["raw-one-way"].push_back(rank.put_raw_small(kRowBytes, kNumSmallTimes));
    samples["raw-exchange"].push_back(rank.exchange_raw_small(kRowBytes, kNumSmallTimes));
    samples["low-latency"].push_back(rank.dispatch_small(kNumSmallTimes));
  }
  rank.close();
  return to_text(samples);
}

Sample median(std::vector<Sample> samples) {
  const auto middle = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2);
  std::ranges::nth_element(samples, middle, {}, &Sample::us);
  return *middle;
}

double gb_per_s(const Sample& sample) {
  return static_cast<double>(sample.bytes) / sample.us / 1e3;
}

std::string json_times(const std::vector<Sample>& samples) {
  std::string text;
  for (const Sample& sample : samples) {
    text += fmt::format("{}{:.1f}", text.empty() ? "" : ", ", sample.us);
  }
  return text;
}

// `reference`: whose rate or time the others are compared with.
struct Comparison {
  const char* title;
  const char* reference;
  bool by_rate;
};

std::string report(const std::string& provider, const Comparison& what, const Samples& samples) {
  const Sample yardstick = median(samples.at(what.reference));
  std::string rows;
  fmt::print("{} over {}\n", what.title, provider);
  for (const auto& [name, of_name] : samples) {
    const Sample middle = median(of_name);
    const double ratio =
        what.by_rate ? gb_per_s(middle) / gb_per_s(yardstick) : middle.us / yardstick.us;
    fmt::print("  {:<22} {:>10.1f} us {:>7.1f} MB {:>6.2f} GB/s  {:>5.2f} of {}\n", name, middle.us,
               static_cast<double>(middle.bytes) / 1e6, gb_per_s(middle), ratio, what.reference);
    rows += fmt::format(
        "{}\n      {{\"name\": \"{}\", \"median_us\": {:.2f}, \"bytes_per_rank\": {}, "
        "\"gb_per_s_per_rank\": {:.3f}, \"{}\": {:.3f},\n       \"times_us\": [{}]}}",
        rows.empty() ? "" : ",", name, middle.us, middle.bytes, gb_per_s(middle),
        what.by_rate ? "rate_over_reference" : "time_over_reference", ratio, json_times(of_name));
  }
  return fmt::format(
      "    {{\"provider\": \"{}\", \"what\": \"{}\", \"reference\": \"{}\", \"entrants\": [{}]}}",
      provider, what.title, what.reference, rows);
}

std::string run_provider(const std::string& provider) {
  const NodeJob large{.provider = provider, .num_ranks = 4, .port = free_port()};
  const Samples of_large = from_text(
      run_pairs(2, [&](Pair& pair, int number) { return run_large(pair, number, large); }));
  const NodeJob small{.provider = provider, .num_ranks = 2, .port = free_port()};
  const Samples of_small = from_text(
      run_pairs(1, [&](Pair& pair, int number) { return run_small(pair, number, small); }));
  return report(provider, {"2 nodes x 2 ranks, 2048 tokens of 7168 bf16, top-8 of 64", "raw", true},
                of_large) +
         ",\n" +
         report(provider, {"2 nodes x 1 rank, one token of 7168 bf16", "raw-exchange", false},
                of_small);
}

double load_average() {
  double load = 0;
  ::getloadavg(&load, 1);  // other work on the machine blurs the times, less so their ratios
  return load;
}

void run(const char* path, const std::vector<std::string>& providers) {
  const double load = load_average();
  std::string json;
  for (const std::string& provider : providers) {
    json += (json.empty() ? "" : ",\n") + run_provider(provider);
  }
  const std::string text = fmt::format(
      "{{\n  \"schema\": 1,\n  \"what\": \"two emulated nodes of one machine, ranks as processes; "
      "medians of {} and {} rounds that take turns; the slowest rank counts\",\n"
      "  \"num_cores\": {},\n  \"load_before\": {:.2f},\n  \"cases\": [\n{}\n  ]\n}}\n",
      kNumRounds, kNumSmallRounds, std::thread::hardware_concurrency(), load, json);
  std::FILE* const file = std::fopen(path, "w");
  if (file == nullptr) throw std::runtime_error(fmt::format("cannot write {}", path));
  std::fputs(text.c_str(), file);
  std::fclose(file);
}

}  // namespace
}  // namespace moelink::bench

int main(int argc, char** argv) {
  try {
    std::vector<std::string> providers(argv + std::min(argc, 2), argv + argc);
    if (providers.empty()) providers = {"tcp", "shm"};
    moelink::bench::run(argc > 1 ? argv[1] : "nodes_cpu.json", providers);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
