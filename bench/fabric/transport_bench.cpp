// Measures puts between two processes of this machine: bare libfabric, Moelink's transport and its
// proxy, taking turns in one run. Prints a table; writes JSON to the file that is its argument.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iterator>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <thread>
#include <vector>

#include "contestant.hpp"

namespace moelink::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kNumRepetitions = 9;  // the median counts
constexpr std::uint64_t kNumRoundTrips = 2000;
constexpr std::size_t kStreamBytes = std::size_t{128} << 20;
constexpr std::size_t kMaxStreamPuts = 8000;
constexpr const char* kProviders[] = {"tcp", "shm"};

struct Case {
  const char* name;
  std::size_t bytes;
  bool is_stream;
};
constexpr Case kCases[] = {{"one way, 8 B", 8, false},      {"one way, 7 KiB", 7168, false},
                           {"stream, 8 B", 8, true},        {"stream, 7 KiB", 7168, true},
                           {"stream, 64 KiB", 65536, true}, {"stream, 1 MiB", 1 << 20, true}};

struct Entrant {
  const char* name;
  std::unique_ptr<Contestant> (*open)(Pair&, const std::string&);
};
constexpr Entrant kEntrants[] = {{"raw", open_raw_fabric},
                                 {"transport", open_transport_contestant},
                                 {"proxy", open_proxy_contestant}};

// Microseconds that one put takes on its way to and through the other side.
class Course {
 public:
  explicit Course(Contestant& contestant) : contestant_(contestant) {}

  double one_way_us(int rank, std::size_t bytes) {
    const auto start = Clock::now();
    for (std::uint64_t i = 0; i < kNumRoundTrips; ++i) {
      if (rank == 0) contestant_.put(0, bytes);
      contestant_.await(++num_arrivals_);
      if (rank == 1) contestant_.put(0, bytes);
    }
    contestant_.flush();
    return elapsed_us(start) / (2.0 * static_cast<double>(kNumRoundTrips));
  }

  // Rank 1 answers once everything has arrived.
  double stream_us(int rank, std::size_t bytes) {
    const std::size_t num_puts = std::min(kMaxStreamPuts, kStreamBytes / bytes);
    const std::size_t num_places = kHeapBytes / bytes;
    const auto start = Clock::now();
    if (rank == 0) {
      for (std::size_t i = 0; i < num_puts; ++i) contestant_.put(i % num_places * bytes, bytes);
      contestant_.await(++num_arrivals_);
    } else {
      contestant_.await(num_arrivals_ += num_puts);
      contestant_.put(0, 8);
    }
    contestant_.flush();
    return elapsed_us(start) / static_cast<double>(num_puts);
  }

 private:
  static double elapsed_us(Clock::time_point start) {
    return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
  }

  Contestant& contestant_;
  std::uint64_t num_arrivals_ = 0;
};

double measure(Course& course, Pair& pair, const Case& what) {
  pair.meet();
  return what.is_stream ? course.stream_us(pair.rank(), what.bytes)
                        : course.one_way_us(pair.rank(), what.bytes);
}

// Microseconds per put of one entrant, one for each case, as text. A fresh pair each time, so that
// entrants take turns and share nothing.
std::string run_entrant(Pair& pair, const Entrant& entrant, const std::string& provider) {
  const std::unique_ptr<Contestant> contestant = entrant.open(pair, provider);
  Course course(*contestant);
  std::string text;
  measure(course, pair, kCases[0]);  // connects
  for (const Case& what : kCases) text += fmt::format("{} ", measure(course, pair, what));
  pair.meet();
  return text;
}

using Samples = std::vector<std::vector<double>>;  // by case, then by repetition

void append_samples(Samples& samples, const std::string& text) {
  std::istringstream stream(text);
  for (std::vector<double>& of_case : samples) {
    double value = 0;
    stream >> value;
    of_case.push_back(value);
  }
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::string report_case(const char* provider, const Case& what, const std::vector<double>& us) {
  const double bytes = static_cast<double>(what.bytes);
  std::string entrants;
  std::string row = fmt::format("{:<4} {:<16}", provider, what.name);
  for (std::size_t i = 0; i < us.size(); ++i) {
    const double ratio = us[i] / us[0];
    row += fmt::format("  {:<9} {:>8.2f} us {:>6.2f} GB/s {:>5.2f}x", kEntrants[i].name, us[i],
                       bytes / us[i] / 1e3, ratio);
    entrants += fmt::format(
        "{}\n      {{\"name\": \"{}\", \"us_per_put\": {:.3f}, \"gb_per_s\": {:.3f}, "
        "\"time_over_raw\": {:.3f}}}",
        i == 0 ? "" : ",", kEntrants[i].name, us[i], bytes / us[i] / 1e3, ratio);
  }
  fmt::print("{}\n", row);
  return fmt::format(
      "    {{\"provider\": \"{}\", \"case\": \"{}\", \"bytes\": {}, \"entrants\": [{}]}}", provider,
      what.name, what.bytes, entrants);
}

std::string run_provider(const char* provider) {
  std::vector<Samples> samples(std::size(kEntrants), Samples(std::size(kCases)));
  for (int repetition = 0; repetition < kNumRepetitions; ++repetition) {
    for (std::size_t i = 0; i < std::size(kEntrants); ++i) {
      append_samples(samples[i], run_pair([&](Pair& pair) {
                       return run_entrant(pair, kEntrants[i], provider);
                     }));
    }
  }
  std::string json;
  for (std::size_t c = 0; c < std::size(kCases); ++c) {
    std::vector<double> us;
    for (const Samples& of_entrant : samples) us.push_back(median(of_entrant[c]));
    json += (c == 0 ? "" : ",\n") + report_case(provider, kCases[c], us);
  }
  return json;
}

void run(const char* path) {
  std::string json;
  for (const char* const provider : kProviders) {
    json += (json.empty() ? "" : ",\n") + run_provider(provider);
  }
  double load = 0;
  ::getloadavg(&load, 1);  // other work on the machine blurs the times, less so their ratios
  const std::string text = fmt::format(
      "{{\n  \"schema\": 1,\n  \"what\": \"puts with immediates between two processes of one "
      "machine; medians of {} runs that take turns\",\n  \"num_cores\": {},\n"
      "  \"load_average\": {:.2f},\n  \"cases\": [\n{}\n  ]\n}}\n",
      kNumRepetitions, std::thread::hardware_concurrency(), load, json);
  std::FILE* const file = std::fopen(path, "w");
  if (file == nullptr) throw std::runtime_error(fmt::format("cannot write {}", path));
  std::fputs(text.c_str(), file);
  std::fclose(file);
}

}  // namespace
}  // namespace moelink::bench

int main(int argc, char** argv) {
  try {
    moelink::bench::run(argc > 1 ? argv[1] : "transport.json");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
