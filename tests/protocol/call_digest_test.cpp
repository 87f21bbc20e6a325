// Comparison of calls.
#include "protocol/call_digest.hpp"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace moelink {
namespace {

TEST(CallDigest, EqualCallsHaveNoDifference) {
  CallDigest one;
  one.set(DigestField::kHiddenBytes, 4096);
  EXPECT_EQ(one.first_difference(one), kNumDigestFields);
  EXPECT_EQ(CallDigest{}.first_difference(CallDigest{}), kNumDigestFields);
}

TEST(CallDigest, EveryFieldIsCompared) {
  for (std::size_t i = 0; i < kNumDigestFields; ++i) {
    CallDigest one;
    CallDigest other;
    other.set(static_cast<DigestField>(i), 5);
    EXPECT_EQ(other.get(static_cast<DigestField>(i)), 5);
    EXPECT_EQ(one.first_difference(other), i);
    EXPECT_EQ(one.first_difference(other, i + 1), kNumDigestFields);
  }
}

TEST(CallDigest, AllDifferencesAreFoundInTurn) {
  CallDigest one;
  CallDigest other;
  other.set(DigestField::kDType, 1);
  other.set(DigestField::kLayout, 1);
  other.set(DigestField::kHandle, -1);
  std::set<std::size_t> found;
  for (std::size_t i = one.first_difference(other); i < kNumDigestFields;
       i = one.first_difference(other, i + 1)) {
    found.insert(i);
  }
  EXPECT_EQ(found, (std::set<std::size_t>{static_cast<std::size_t>(DigestField::kDType),
                                          static_cast<std::size_t>(DigestField::kLayout),
                                          static_cast<std::size_t>(DigestField::kHandle)}));
}

TEST(CallDigest, EveryFieldHasItsOwnName) {
  std::set<std::string> names;
  for (const char* name : kDigestFieldNames) names.insert(name);
  EXPECT_EQ(names.size(), kNumDigestFields);
  EXPECT_STREQ(kDigestFieldNames[static_cast<std::size_t>(DigestField::kHandle)],
               "handle (number of its dispatch)");
}

}  // namespace
}  // namespace moelink
