// Opens the transport, lets the pairs of each round measure, and gathers what all ranks saw.
#include "moelink/network.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <sstream>
#include <utility>

#include "api/network_pairs.hpp"
#include "api/network_probe.hpp"
#include "base/check.hpp"
#include "base/environment.hpp"
#include "bootstrap/bootstrap.hpp"
#include "symm/host_identity.hpp"
#include "transport/open_transport.hpp"

namespace moelink {

namespace {

using Views = std::map<Rank, PeerView>;  // by peer

// With what the caller has left open filled in from the environment.
NetworkCheck complete_check(const Group& group, NetworkCheck check) {
  const Environment& wishes = environment();
  if (check.transport.empty()) check.transport = wishes.network;
  if (check.provider.empty()) check.provider = wishes.fabric_provider;
  if (check.max_nics == 0) check.max_nics = wishes.max_nics;
  Violations violations("measure_network", group.rank());
  const std::vector<std::string> kinds = transport_kinds();
  violations.require(
      check.transport == "auto" || std::ranges::find(kinds, check.transport) != kinds.end(),
      "transport is '{}', expected libfabric or loopback (or MOELINK_NETWORK=auto): there is no "
      "other network to measure",
      check.transport);
  violations.require(check.max_nics >= 1, "max_nics is {}, expected at least 1", check.max_nics);
  violations.require(check.timeout.count() > 0, "timeout is {} ms, expected more than 0",
                     check.timeout.count());
  violations.throw_if_any();
  check.timeout =
      std::min(check.timeout, std::max(group.timeout() / 2, std::chrono::milliseconds(1)));
  return check;
}

class Measurement {
 public:
  Measurement(const Group& group, const NetworkCheck& check)
      : group_(group), bootstrap_(group.bootstrap()), check_(complete_check(group, check)) {}

  NetworkReport run() {
    meet();
    NetworkReport report = describe_ranks();
    if (group_.num_ranks() == 1) return report;
    NetworkProbe probe = open_probe();
    gather_transports(probe, report);
    const auto rounds = plan_pairs(hosts_, check_.pairs);
    greet(probe, rounds);
    for (const std::vector<RankPair>& round : rounds) measure_round(probe, round);
    report.links = gather_links(rounds);
    bootstrap_.barrier("network check: end", deadline());
    return report;
  }

 private:
  Deadline deadline() const { return Deadline::after(group_.timeout()); }
  Deadline pair_deadline() const { return Deadline::after(check_.timeout); }

  std::optional<Rank> partner_in(const RankPair& pair) const {
    if (pair.lower == group_.rank()) return pair.higher;
    if (pair.higher == group_.rank()) return pair.lower;
    return std::nullopt;
  }

  std::string settings() const {
    return fmt::format("pairs {}, transport {}, provider {}, max_nics {}, timeout {} ms",
                       static_cast<int>(check_.pairs), check_.transport, check_.provider,
                       check_.max_nics, check_.timeout.count());
  }

  // Who is where, and whether all want the same.
  void meet() {
    const auto blobs = bootstrap_.all_gather(
        settings() + "\n" + HostIdentity::of_this_process(1).encode(), "network check", deadline());
    for (const std::string& blob : blobs) {
      const std::size_t end = blob.find('\n');
      const std::string others = blob.substr(0, end);
      if (others != settings()) {
        fail(ErrorCode::kInvalidArgument,
             "measure_network (rank {}): the ranks' options differ: '{}' here, '{}' on rank {}",
             group_.rank().value(), settings(), others, identities_.size());
      }
      identities_.push_back(HostIdentity::decode(blob.substr(end + 1)));
    }
    for (const HostIdentity& identity : identities_) {
      const auto first = std::ranges::find_if(
          identities_, [&](const HostIdentity& other) { return other.same_host(identity); });
      const auto first_rank = static_cast<std::size_t>(first - identities_.begin());
      const bool is_new = first_rank == hosts_.size();
      hosts_.push_back(is_new ? num_hosts_++ : hosts_[first_rank]);
    }
  }

  NetworkReport describe_ranks() const {
    NetworkReport report;
    for (std::size_t rank = 0; rank < identities_.size(); ++rank) {
      report.ranks.push_back({.host_name = identities_[rank].host_name, .host = hosts_[rank]});
    }
    return report;
  }

  std::string transport_kind() const {
    if (check_.transport != "auto") return check_.transport;
    const bool are_threads = std::ranges::all_of(identities_, [&](const HostIdentity& identity) {
      return identity.same_process(identities_.front());
    });
    return are_threads ? "loopback" : "libfabric";
  }

  NetworkProbe open_probe() {
    const TransportGroup members{
        .rank = group_.rank(),
        .num_ranks = group_.num_ranks(),
        .all_gather = [this](const std::string& blob, const char* what, const Deadline& until) {
          return bootstrap_.all_gather(blob, what, until);
        }};
    TransportConfig config = NetworkProbe::transport_config();
    config.provider = check_.provider;
    config.max_nics = check_.max_nics;
    config.near_pci = check_.near_pci;
    return NetworkProbe(bootstrap_, open_transport(transport_kind(), members, config, deadline()),
                        deadline());
  }

  void gather_transports(const NetworkProbe& probe, NetworkReport& report) {
    const auto texts =
        bootstrap_.all_gather(probe.describe(), "network check: transports", deadline());
    for (std::size_t rank = 0; rank < texts.size(); ++rank) {
      report.ranks[rank].transport = texts[rank];
    }
  }

  // Finds out within one deadline who can be reached at all, so that a lost host costs one of them.
  void greet(NetworkProbe& probe, const std::vector<std::vector<RankPair>>& rounds) {
    std::vector<Rank> peers;
    for (const std::vector<RankPair>& round : rounds) {
      for (const RankPair& pair : round) {
        if (const auto partner = partner_in(pair)) peers.push_back(*partner);
      }
    }
    const std::vector<std::string> problems = probe.greet(peers, pair_deadline());
    for (const Rank peer : peers) views_[peer].problem = problems[peer.index()];
    all_views_ = gather_views("network check: greetings");
  }

  bool greeted(const RankPair& pair) const {
    return all_views_[pair.lower.index()].at(pair.higher).problem.empty() &&
           all_views_[pair.higher.index()].at(pair.lower).problem.empty();
  }

  void measure_round(NetworkProbe& probe, const std::vector<RankPair>& round) {
    for (const RankPair& pair : round) {
      const auto partner = partner_in(pair);
      if (partner && greeted(pair)) views_[*partner] = probe.measure(*partner, pair_deadline());
    }
    if (std::ranges::any_of(round, [&](const RankPair& pair) { return greeted(pair); })) {
      bootstrap_.barrier("network check: round", deadline());
    }
  }

  std::string encode_views() const {
    std::string text;
    for (const auto& [peer, view] : views_) {
      std::string problem = view.problem;
      std::ranges::replace(problem, '\n', ' ');
      text += fmt::format("{} {} {} {} {} {}\n", peer.value(), view.small_put_us, view.row_put_us,
                          view.gb_per_s, view.num_wrong_bytes, problem);
    }
    return text;
  }

  static Views decode_views(const std::string& text, std::size_t rank) {
    Views views;
    std::istringstream lines(text);
    for (std::int32_t peer = 0; lines >> peer;) {
      PeerView& view = views[Rank(peer)];
      lines >> view.small_put_us >> view.row_put_us >> view.gb_per_s >> view.num_wrong_bytes;
      lines.ignore(1);
      if (!std::getline(lines, view.problem)) {
        fail(ErrorCode::kInternal, "network check: rank {} sent views that cannot be read", rank);
      }
    }
    return views;
  }

  std::vector<Views> gather_views(const char* what) {
    std::vector<Views> all;
    for (const std::string& blob : bootstrap_.all_gather(encode_views(), what, deadline())) {
      all.push_back(decode_views(blob, all.size()));
    }
    return all;
  }

  static NetworkLink link_of(Rank source, Rank target, const PeerView& sent,
                             const PeerView& received) {
    NetworkLink link{.source = source,
                     .target = target,
                     .num_wrong_bytes = received.num_wrong_bytes,
                     .problem = sent.problem};
    if (received.problem != sent.problem) {
      link.problem += (link.problem.empty() ? "" : "; ") + received.problem;
    }
    if (!link.problem.empty()) return link;
    link.small_put_us = source < target ? sent.small_put_us : received.small_put_us;
    link.row_put_us = source < target ? sent.row_put_us : received.row_put_us;
    link.gb_per_s = sent.gb_per_s;
    return link;
  }

  std::vector<NetworkLink> gather_links(const std::vector<std::vector<RankPair>>& rounds) {
    if (rounds.empty()) return {};
    all_views_ = gather_views("network check: results");
    std::vector<NetworkLink> links;
    for (std::size_t rank = 0; rank < all_views_.size(); ++rank) {
      const Rank source(static_cast<std::int32_t>(rank));
      for (const auto& [target, view] : all_views_[rank]) {
        links.push_back(link_of(source, target, view, all_views_[target.index()].at(source)));
      }
    }
    return links;
  }

  const Group& group_;
  Bootstrap& bootstrap_;
  NetworkCheck check_;
  std::vector<HostIdentity> identities_;
  std::vector<int> hosts_;  // by rank
  int num_hosts_ = 0;
  Views views_;
  std::vector<Views> all_views_;  // by rank
};

}  // namespace

NetworkReport measure_network(const Group& group, const NetworkCheck& check) {
  return Measurement(group, check).run();
}

}  // namespace moelink
