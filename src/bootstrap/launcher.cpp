// Reads launchers' variables through a lookup function, so that tests need no environment.
#include "bootstrap/launcher.hpp"

#include <fmt/format.h>

#include <charconv>
#include <initializer_list>
#include <limits>
#include <optional>
#include <utility>

#include "base/check.hpp"

namespace moelink {

namespace {

constexpr const char* kLoopback = "127.0.0.1";
// Below the range from which systems take the ports of outgoing connections.
constexpr std::uint32_t kFirstDerivedPort = 20000;
constexpr std::uint32_t kNumDerivedPorts = 10000;

struct LauncherNames {
  const char* rank;
  std::initializer_list<const char*> num_ranks;  // the first that is set counts
};

constexpr LauncherNames kLaunchers[] = {
    {"MOELINK_RANK", {"MOELINK_NUM_RANKS"}},
    {"RANK", {"WORLD_SIZE"}},
    {"OMPI_COMM_WORLD_RANK", {"OMPI_COMM_WORLD_SIZE"}},
    {"PMI_RANK", {"PMI_SIZE"}},
    {"PMIX_RANK", {"OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}},
    {"SLURM_PROCID", {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}},
};

class LauncherReader {
 public:
  explicit LauncherReader(const VariableLookup& lookup) : lookup_(lookup) {}

  RendezvousConfig read() {
    const LauncherNames& names = find_launcher();
    RendezvousConfig config;
    config.num_ranks = read_num_ranks(names);
    config.rank = Rank(
        static_cast<std::int32_t>(parse(names.rank, lookup_(names.rank), 0, config.num_ranks - 1)));
    config.host = read_host(config.num_ranks);
    config.port = read_port();
    return config;
  }

 private:
  const LauncherNames& find_launcher() const {
    for (const LauncherNames& names : kLaunchers) {
      if (is_set(names.rank)) return names;
    }
    fail(
        ErrorCode::kInvalidArgument,
        "no launcher found: none of MOELINK_RANK, RANK (torchrun), OMPI_COMM_WORLD_RANK, PMI_RANK, "
        "PMIX_RANK (mpirun) and SLURM_PROCID (srun) is set; start the program with one of these "
        "launchers, or set MOELINK_RANK and MOELINK_NUM_RANKS");
  }

  int read_num_ranks(const LauncherNames& names) const {
    constexpr std::int64_t kMostRanks = std::numeric_limits<std::int32_t>::max();
    for (const char* name : names.num_ranks) {
      if (is_set(name)) return static_cast<int>(parse(name, lookup_(name), 1, kMostRanks));
    }
    fail(ErrorCode::kInvalidArgument, "{} is set but {} is not: expected the number of ranks",
         names.rank, *names.num_ranks.begin());
  }

  std::string read_host(int num_ranks) const {
    for (const char* name : {"MOELINK_HOST", "MASTER_ADDR"}) {
      if (is_set(name)) return lookup_(name);
    }
    const std::optional<int> num_local = read_num_local();
    if (num_local == num_ranks) return kLoopback;
    for (const char* name : {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"}) {
      if (!is_set(name)) continue;
      const std::vector<std::string> hosts = expand_host_list(lookup_(name), name);
      return hosts.size() == 1 ? kLoopback : hosts.front();
    }
    if (is_set("SLURM_LAUNCH_NODE_IPADDR")) return lookup_("SLURM_LAUNCH_NODE_IPADDR");
    if (!num_local) return kLoopback;
    fail(ErrorCode::kInvalidArgument,
         "MOELINK_HOST is not set: {} of {} ranks are on this host, expected the host of rank 0",
         *num_local, num_ranks);
  }

  // Ranks on this host, if the launcher tells.
  std::optional<int> read_num_local() const {
    for (const char* name : {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"}) {
      if (is_set(name)) {
        return static_cast<int>(
            parse(name, lookup_(name), 1, std::numeric_limits<std::int32_t>::max()));
      }
    }
    return std::nullopt;
  }

  std::uint16_t read_port() const {
    constexpr std::int64_t kLastPort = 65535;
    if (is_set("MOELINK_PORT")) {
      return static_cast<std::uint16_t>(
          parse("MOELINK_PORT", lookup_("MOELINK_PORT"), 1, kLastPort));
    }
    if (is_set("MASTER_PORT")) {
      const auto store = parse("MASTER_PORT (its successor is used; or set MOELINK_PORT)",
                               lookup_("MASTER_PORT"), 1, kLastPort - 1);
      return static_cast<std::uint16_t>(store + 1);
    }
    if (is_set("SLURM_JOB_ID")) {
      const char* step = is_set("SLURM_STEP_ID") ? lookup_("SLURM_STEP_ID") : "";
      return derive_port(fmt::format("{}.{}", lookup_("SLURM_JOB_ID"), step));
    }
    if (is_set("PMIX_NAMESPACE")) return derive_port(lookup_("PMIX_NAMESPACE"));
    return kDefaultRendezvousPort;
  }

  static std::uint16_t derive_port(std::string_view job) {
    std::uint32_t hash = 2166136261u;  // FNV-1a
    for (const char character : job) {
      hash = (hash ^ static_cast<unsigned char>(character)) * 16777619u;
    }
    return static_cast<std::uint16_t>(kFirstDerivedPort + hash % kNumDerivedPorts);
  }

  bool is_set(const char* name) const {
    const char* value = lookup_(name);
    return value != nullptr && *value != '\0';
  }

  static std::int64_t parse(const char* name, std::string_view text, std::int64_t least,
                            std::int64_t most) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
      fail(ErrorCode::kInvalidArgument, "{} is '{}', expected an integer from {} to {}", name, text,
           least, most);
    }
    return value;
  }

  const VariableLookup& lookup_;
};

}  // namespace

RendezvousConfig read_launcher(const VariableLookup& lookup, std::string secret) {
  RendezvousConfig config = LauncherReader(lookup).read();
  config.secret = std::move(secret);
  return config;
}

}  // namespace moelink
