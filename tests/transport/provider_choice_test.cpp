// Which provider a group of ranks settles on.
#include "transport/provider_choice.hpp"

#include <gtest/gtest.h>

#include "conformance/texts.hpp"
#include "moelink/errors.hpp"

namespace moelink {
namespace {

using Lists = std::vector<std::vector<std::string>>;

template <class Call>
std::string text_of_error(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

TEST(ProviderChoice, TakesTheBestThatAllRanksHave) {
  EXPECT_EQ(choose_provider(Lists{{"tcp", "verbs"}, {"verbs", "tcp"}}, ""), "verbs");
  EXPECT_EQ(choose_provider(Lists{{"verbs", "tcp"}, {"tcp"}}, ""), "tcp");
}

TEST(ProviderChoice, TakesTheOneForOneHostOnlyOnRequest) {
  const Lists lists{{"tcp", "shm"}, {"tcp", "shm"}};
  EXPECT_EQ(choose_provider(lists, ""), "tcp");
  EXPECT_EQ(choose_provider(lists, "shm"), "shm");
}

TEST(ProviderChoice, NamesTheRankThatLacksIt) {
  const std::string wished = text_of_error([] { choose_provider(Lists{{"tcp"}, {"shm"}}, "tcp"); });
  EXPECT_TRUE(test::mentions(wished, {"unsupported", "rank 1", "'tcp'", "it has: shm"}));
  const std::string empty = text_of_error([] { choose_provider(Lists{{}}, "efa"); });
  EXPECT_TRUE(test::mentions(empty, {"rank 0", "'efa'", "it has: none"}));
  const std::string nothing = text_of_error([] { choose_provider(Lists{{"tcp"}, {"shm"}}, ""); });
  EXPECT_TRUE(test::mentions(nothing, {"unsupported", "rank 1 has: shm"}));
}

TEST(ProviderChoice, RefusesSocketsAndUnknownNames) {
  const auto refusal = [](const char* wish) {
    return text_of_error([&] { check_provider_wish(wish, Rank(3)); });
  };
  EXPECT_TRUE(test::mentions(refusal("sockets"), {"rank 3", "'sockets'", "hang", "'tcp'"}));
  EXPECT_TRUE(test::mentions(refusal("udp"), {"rank 3", "'udp'", "efa, cxi, verbs, tcp, shm"}));
  EXPECT_EQ(refusal("tcp"), "");
  EXPECT_EQ(refusal(""), "");
}

TEST(ProviderChoice, SeesThroughLayers) {
  EXPECT_EQ(base_provider("tcp;ofi_rxm"), "tcp");
  EXPECT_EQ(base_provider("verbs"), "verbs");
}

}  // namespace
}  // namespace moelink
