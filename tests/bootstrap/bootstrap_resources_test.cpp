// Groups give back what they took from the system.
#include <gtest/gtest.h>

#include <filesystem>
#include <iterator>

#include "bootstrap/tcp_world.hpp"

namespace moelink::test {
namespace {

long count_open_files() {
  const std::filesystem::directory_iterator files("/proc/self/fd");
  return std::distance(begin(files), end(files));
}

TEST(TcpResources, FiftyGroupsLeakNoFileDescriptor) {
  Rendezvous(3).expect_job_completes();  // opens what stays open for the process
  const long before = count_open_files();
  for (int cycle = 0; cycle < 50; ++cycle) Rendezvous(3).expect_job_completes();
  EXPECT_EQ(count_open_files(), before);
}

TEST(TcpResources, FailedGroupsLeakNoFileDescriptor) {
  Rendezvous(2).expect_job_completes();
  const long before = count_open_files();
  for (int cycle = 0; cycle < 10; ++cycle) {
    Rendezvous job(2);
    auto config = job.config(1);
    config.secret = "another secret";
    EXPECT_THROW(job.join(config), Error);
    auto bootstraps = job.complete();
    bootstraps[1].reset();
    EXPECT_THROW(gather(*bootstraps[0], ""), Error);
  }
  EXPECT_EQ(count_open_files(), before);
}

TEST(TcpResources, TheSamePortServesOneGroupAfterTheOther) {
  const auto port = find_free_port();
  for (int cycle = 0; cycle < 20; ++cycle) {
    auto member = std::async(std::launch::async, [&] {
      const auto bootstrap = open_tcp_bootstrap(tcp_config(1, 2, port), Deadline::after(kLongWait));
      return gather(*bootstrap, "one");
    });
    const auto host = open_tcp_bootstrap(tcp_config(0, 2, port), Deadline::after(kLongWait));
    EXPECT_EQ(gather(*host, "zero"), (std::vector<std::string>{"zero", "one"}));
    EXPECT_EQ(member.get(), (std::vector<std::string>{"zero", "one"}));
  }
}

}  // namespace
}  // namespace moelink::test
