// The registry, and what opening refuses.
#include "transport/open_transport.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "conformance/texts.hpp"
#include "moelink/errors.hpp"
#include "transport/chaos/chaos_transport.hpp"

namespace moelink {
namespace {

TransportGroup lone_group() {
  TransportGroup group{.rank = Rank(0), .num_ranks = 1};
  group.all_gather = [](const std::string& blob, const char*, const Deadline&) {
    return std::vector<std::string>{blob};
  };
  return group;
}

std::string refusal(const std::string& kind, const TransportGroup& group,
                    const TransportConfig& config) {
  try {
    open_transport(kind, group, config, Deadline::after(std::chrono::seconds(10)));
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

TEST(OpenTransport, FindsKindsByName) {
  const auto transport =
      open_transport("loopback", lone_group(), {}, Deadline::after(std::chrono::seconds(10)));
  EXPECT_EQ(transport->describe(), "loopback");
  EXPECT_TRUE(test::mentions(refusal("pigeons", lone_group(), {}),
                             {"invalid argument", "rank 0", "'pigeons'", "loopback or libfabric"}));
}

TEST(OpenTransport, NamesEveryFieldThatIsOutOfRange) {
  TransportConfig config;
  config.num_counters = 5000;
  config.num_epoch_lanes = 3;
  config.max_outstanding = 0;
  config.max_regions = 0;
  config.max_nics = 9;
  TransportGroup group = lone_group();
  group.all_gather = nullptr;
  EXPECT_TRUE(
      test::mentions(refusal("loopback", group, config),
                     {"num_counters is 5000", "num_epoch_lanes is 3", "max_outstanding is 0",
                      "max_regions is 0", "max_nics is 9", "all_gather"}));
}

std::unique_ptr<Transport> open_alone() {
  return open_transport("loopback", lone_group(), {}, Deadline::after(std::chrono::seconds(10)));
}

TEST(TransportDecorator, TakesEveryTransportThatIsOpenedUntilItIsTakenBack) {
  std::vector<Transport*> seen;
  set_transport_decorator([&seen](std::unique_ptr<Transport> inner) {
    seen.push_back(inner.get());
    return inner;
  });
  const std::unique_ptr<Transport> first = open_alone();
  const std::unique_ptr<Transport> second = open_alone();
  set_transport_decorator({});
  const std::unique_ptr<Transport> third = open_alone();
  EXPECT_EQ(seen, (std::vector<Transport*>{first.get(), second.get()}));
}

TEST(TransportDecorator, MayPutAnotherTransportInItsPlace) {
  set_transport_decorator(
      [](std::unique_ptr<Transport> inner) { return make_chaos_transport(std::move(inner), {}); });
  const std::string decorated = open_alone()->describe();
  set_transport_decorator({});
  EXPECT_NE(decorated, "loopback");
  EXPECT_TRUE(test::mentions(decorated, {"loopback"}));
}

TEST(OpenTransport, LibfabricRefusesTheProviderThatHangsOrIsMissing) {
  TransportConfig config;
  config.provider = "sockets";
  const std::string text = refusal("libfabric", lone_group(), config);
  EXPECT_TRUE(test::mentions(text, {"sockets"}) || test::mentions(text, {"no libfabric"})) << text;
}

}  // namespace
}  // namespace moelink
