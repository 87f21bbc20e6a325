// measure_network between threads, and what the probe notices of wrong bytes and lost peers.
#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "api/network_probe.hpp"
#include "conformance/network_reports.hpp"
#include "conformance/outcomes.hpp"
#include "conformance/thread_ranks.hpp"
#include "conformance/transport_rank.hpp"
#include "transport/chaos/chaos_transport.hpp"
#include "transport/loopback/loopback_transport.hpp"

namespace moelink::test {
namespace {

std::vector<std::string> no_errors(int num_ranks) {
  return std::vector<std::string>(static_cast<std::size_t>(num_ranks));
}

TEST(NetworkCheck, MeasuresEveryPairOfThreads) {
  const auto errors = run_thread_ranks(3, [](Bootstrap& bootstrap) {
    const NetworkReport report = measure_network(group_over(bootstrap));
    require_complete(report, 3);
    require(report.ranks[2].transport == "loopback", "it is {}", report.ranks[2].transport);
    require(report.ranks[0].host == 0 && report.ranks[2].host == 0, "threads share a host");
    require_same_everywhere(bootstrap, report);
  });
  EXPECT_EQ(errors, no_errors(3));
}

TEST(NetworkCheck, OfOneRankHasNothingToMeasure) {
  const auto errors = run_thread_ranks(1, [](Bootstrap& bootstrap) {
    const NetworkReport report = measure_network(group_over(bootstrap));
    require(report.ranks.size() == 1 && report.links.empty(), "{} links", report.links.size());
  });
  EXPECT_EQ(errors, no_errors(1));
}

TEST(NetworkCheck, RefusesOptionsWithAllThatIsWrong) {
  const auto errors = run_thread_ranks(2, [](Bootstrap& bootstrap) {
    const NetworkCheck wrong{.transport = "pigeons", .max_nics = -1};
    const Outcome outcome = outcome_of([&] { measure_network(group_over(bootstrap), wrong); });
    require_failure(outcome, ErrorCode::kInvalidArgument,
                    {"measure_network (rank ", "transport is 'pigeons'", "max_nics is -1"});
  });
  EXPECT_EQ(errors, no_errors(2));
}

TEST(NetworkCheck, RefusesOptionsThatDifferBetweenRanks) {
  const auto errors = run_thread_ranks(2, [](Bootstrap& bootstrap) {
    NetworkCheck check{.pairs = NetworkPairs::kAll};
    if (bootstrap.rank() == Rank(1)) check.pairs = NetworkPairs::kRails;
    const Outcome outcome = outcome_of([&] { measure_network(group_over(bootstrap), check); });
    require_failure(outcome, ErrorCode::kInvalidArgument, {"options differ", "pairs 1"});
  });
  EXPECT_EQ(errors, no_errors(2));
}

// Flips a bit of large puts on their way, once in a while.
class CorruptingTransport final : public Transport {
 public:
  explicit CorruptingTransport(std::unique_ptr<Transport> inner)
      : Transport(TransportGroup{.rank = inner->rank(), .num_ranks = inner->num_ranks()}),
        inner_(std::move(inner)) {}

  std::string describe() const override { return "corrupting"; }
  LocalRegion register_region(std::span<std::byte> memory) override {
    return inner_->register_region(memory);
  }
  WireRegion wire_region(LocalRegion region) const override { return inner_->wire_region(region); }
  void deregister_region(LocalRegion region) override { inner_->deregister_region(region); }
  PeerRegion import_region(Rank peer, const WireRegion& wire) override {
    return inner_->import_region(peer, wire);
  }
  const RegionTable& regions() const override { return inner_->regions(); }
  PutResult try_put(const Put& put) override {
    if (put.bytes < 4096 || ++num_large_ % 50 != 0) return inner_->try_put(put);
    std::byte& byte = regions().local(put.source)[put.source_offset + put.bytes - 1];
    byte ^= std::byte{1};
    const PutResult result = inner_->try_put(put);  // copies at once
    byte ^= std::byte{1};
    return result;
  }
  int progress() override { return inner_->progress(); }
  const ArrivalCounters& arrivals() const override { return inner_->arrivals(); }
  std::uint64_t num_accepted() const override { return inner_->num_accepted(); }
  std::uint64_t completed_through() const override { return inner_->completed_through(); }
  std::optional<Rank> oldest_incomplete_peer() const override {
    return inner_->oldest_incomplete_peer();
  }
  void close() override { inner_->close(); }

 private:
  std::unique_ptr<Transport> inner_;
  int num_large_ = 0;
};

std::unique_ptr<Transport> open_loopback(Bootstrap& bootstrap) {
  return open_loopback_transport(group_of(bootstrap), NetworkProbe::transport_config(), soon());
}

PeerView measure_other(Bootstrap& bootstrap, std::unique_ptr<Transport> transport) {
  const Rank other(1 - bootstrap.rank().value());
  NetworkProbe probe(bootstrap, std::move(transport), soon());
  const auto problems = probe.greet(std::span(&other, 1), soon());
  require(problems[other.index()].empty(), "{}", problems[other.index()]);
  const PeerView view = probe.measure(other, soon());
  bootstrap.barrier("measured", soon());
  return view;
}

TEST(NetworkProbe, CountsTheBytesThatArriveWrong) {
  const auto errors = run_thread_ranks(2, [](Bootstrap& bootstrap) {
    std::unique_ptr<Transport> transport = open_loopback(bootstrap);
    if (bootstrap.rank() == Rank(1)) {
      transport = std::make_unique<CorruptingTransport>(std::move(transport));
    }
    const PeerView view = measure_other(bootstrap, std::move(transport));
    require(view.problem.empty(), "{}", view.problem);
    const std::uint64_t expected = bootstrap.rank() == Rank(0) ? 2 : 0;  // of 130 large puts
    require(view.num_wrong_bytes == expected, "{} wrong bytes, expected {}", view.num_wrong_bytes,
            expected);
  });
  EXPECT_EQ(errors, no_errors(2));
}

TEST(NetworkProbe, AssumesNoOrderOfPuts) {
  const auto errors = run_thread_ranks(2, [](Bootstrap& bootstrap) {
    const PeerView view = measure_other(
        bootstrap,
        make_chaos_transport(open_loopback(bootstrap), {.seed = 1 + bootstrap.rank().index()}));
    require(view.problem.empty(), "{}", view.problem);
    require(view.num_wrong_bytes == 0, "{} wrong bytes", view.num_wrong_bytes);
  });
  EXPECT_EQ(errors, no_errors(2));
}

TEST(NetworkProbe, NamesAPeerThatDoesNotAnswerWithinOneDeadline) {
  const auto errors = run_thread_ranks(3, [](Bootstrap& bootstrap) {
    NetworkProbe probe(bootstrap, open_loopback(bootstrap), soon());
    std::vector<Rank> peers{Rank(0), Rank(1), Rank(2)};
    std::erase(peers, bootstrap.rank());
    if (bootstrap.rank() != Rank(2)) {
      const auto problems = probe.greet(peers, Deadline::after(std::chrono::seconds(1)));
      const Rank other(1 - bootstrap.rank().value());
      require(problems[other.index()].empty(), "{}", problems[other.index()]);
      require_words(problems[2], {fmt::format("rank {}: ", bootstrap.rank().value()),
                                  "nothing arrived from rank 2 within 1000 ms"});
      const PeerView view = probe.measure(Rank(2), Deadline::after(std::chrono::milliseconds(50)));
      require_words(view.problem, {"rank 2"});
    }
    bootstrap.barrier("greeted", soon());
  });
  EXPECT_EQ(errors, no_errors(3));
}

}  // namespace
}  // namespace moelink::test
