// What every report of measure_network must say, for ranks that are threads or processes.
#pragma once

#include <string>
#include <vector>

#include "bootstrap/bootstrap.hpp"
#include "conformance/memory_probes.hpp"
#include "moelink/network.hpp"

namespace moelink::test {

// A group over a test's bootstrap, which must outlive it.
inline Group group_over(Bootstrap& bootstrap, std::chrono::milliseconds timeout =
                                                  test_timeout(std::chrono::seconds(30))) {
  const auto all_gather = [&bootstrap](const std::string& blob) {
    return bootstrap.all_gather(blob, "all_gather", soon());
  };
  return Group::from_callback(bootstrap.rank(), bootstrap.num_ranks(), all_gather,
                              {.timeout = timeout});
}

inline void require_measured(const NetworkLink& link) {
  require(link.problem.empty(), "{} to {}: {}", link.source.value(), link.target.value(),
          link.problem);
  require(link.num_wrong_bytes == 0, "{} wrong bytes", link.num_wrong_bytes);
  require(link.small_put_us > 0 && link.row_put_us > 0 && link.gb_per_s > 0, "a figure is missing");
}

// Every link of all pairs, in order, measured, and alike in both directions where it must be.
inline void require_complete(const NetworkReport& report, int num_ranks) {
  require(report.ranks.size() == static_cast<std::size_t>(num_ranks), "{} ranks",
          report.ranks.size());
  std::size_t next = 0;
  for (Rank source(0); source.value() < num_ranks; source = source.next()) {
    for (Rank target(0); target.value() < num_ranks; target = target.next()) {
      if (source == target) continue;
      require(next < report.links.size(), "only {} links", report.links.size());
      const NetworkLink& link = report.links[next++];
      require(link.source == source && link.target == target, "link {} is another one", next - 1);
      require_measured(link);
    }
  }
  require(next == report.links.size(), "{} links too many", report.links.size() - next);
  for (const NetworkLink& link : report.links) {
    for (const NetworkLink& back : report.links) {
      if (back.source != link.target || back.target != link.source) continue;
      require(back.small_put_us == link.small_put_us && back.row_put_us == link.row_put_us,
              "the round trip has two lengths");
    }
  }
}

// The same text at ranks that have the same report.
inline std::string digest_of(const NetworkReport& report) {
  std::string text;
  for (const NetworkRank& rank : report.ranks) text += rank.host_name + rank.transport;
  for (const NetworkLink& link : report.links) {
    text += fmt::format("{} {} {}|", link.small_put_us, link.gb_per_s, link.problem);
  }
  return text;
}

inline void require_same_everywhere(Bootstrap& bootstrap, const NetworkReport& report) {
  const std::string own = digest_of(report);
  for (const std::string& other : bootstrap.all_gather(own, "digests", soon())) {
    require(other == own, "the reports differ");
  }
}

}  // namespace moelink::test
