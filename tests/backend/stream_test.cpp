// Streams and events of the CPU backend.
#include "backend/cpu/stream.hpp"

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

namespace moelink {
namespace {

TEST(Stream, ExecutesTasksInTheOrderOfEnqueueing) {
  Stream stream;
  std::vector<int> order;
  std::vector<Event> events;
  for (int i = 0; i < 100; ++i) events.push_back(stream.enqueue([&, i] { order.push_back(i); }));
  for (const Event& event : events) event.wait();
  ASSERT_EQ(order.size(), 100U);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
}

TEST(Stream, EventIsPendingUntilItsTaskIsDone) {
  Stream stream;
  std::promise<void> gate;
  const Event event = stream.enqueue([&] { gate.get_future().wait(); });
  EXPECT_TRUE(event.pending());
  gate.set_value();
  event.wait();
  EXPECT_FALSE(event.pending());
}

TEST(Stream, WaitRethrowsTheErrorOfTheTaskEveryTime) {
  Stream stream;
  const Event event = stream.enqueue([] { throw std::runtime_error("on purpose"); });
  for (int i = 0; i < 2; ++i) {
    try {
      event.wait();
      FAIL() << "nothing was thrown";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "on purpose");
    }
  }
  EXPECT_FALSE(event.pending());
}

TEST(Stream, GoesOnAfterATaskThatThrew) {
  Stream stream;
  stream.enqueue([] { throw std::runtime_error("on purpose"); });
  bool ran = false;
  stream.enqueue([&] { ran = true; }).wait();
  EXPECT_TRUE(ran);
}

TEST(Stream, RunOnAnIdleStreamExecutesOnTheCallingThread) {
  Stream stream;
  std::thread::id executor;
  stream.run([&] { executor = std::this_thread::get_id(); });
  EXPECT_EQ(executor, std::this_thread::get_id());
  stream.enqueue([&] { executor = std::this_thread::get_id(); }).wait();
  EXPECT_NE(executor, std::this_thread::get_id());
  stream.run([&] { executor = std::this_thread::get_id(); });
  EXPECT_EQ(executor, std::this_thread::get_id());
}

TEST(Stream, RunComesAfterWhatWasEnqueuedBefore) {
  Stream stream;
  std::promise<void> gate;
  std::vector<int> order;
  stream.enqueue([&] {
    gate.get_future().wait();
    order.push_back(1);
  });
  stream.enqueue([&] { order.push_back(2); });
  std::thread opener([&] { gate.set_value(); });
  stream.run([&] { order.push_back(3); });
  opener.join();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

TEST(Stream, RunThrowsWhatItsTaskThrowsAndStaysUsable) {
  Stream stream;
  EXPECT_THROW(stream.run([] { throw std::runtime_error("on purpose"); }), std::runtime_error);
  bool ran = false;
  stream.run([&] { ran = true; });
  EXPECT_TRUE(ran);
}

TEST(Stream, DestructionFinishesQueuedTasks) {
  int done = 0;
  {
    Stream stream;
    for (int i = 0; i < 20; ++i) stream.enqueue([&] { ++done; });
  }
  EXPECT_EQ(done, 20);
}

TEST(Stream, ReleasesWhatATaskHeldBeforeItsEventCompletes) {
  Stream stream;
  auto held = std::make_shared<int>(1);
  const std::weak_ptr<int> watcher = held;
  const Event event = stream.enqueue([held = std::move(held)] { EXPECT_EQ(*held, 1); });
  event.wait();
  EXPECT_TRUE(watcher.expired());
}

TEST(Stream, TakesTasksFromSeveralThreads) {
  Stream stream;
  int count = 0;  // only the stream touches it
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int j = 0; j < 50; ++j) {
        const auto task = [&count] { ++count; };
        i % 2 == 0 ? stream.enqueue(task).wait() : stream.run(task);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count, 200);
}

TEST(Event, MadeByDefaultIsComplete) {
  const Event event;
  EXPECT_FALSE(event.pending());
  EXPECT_FALSE(static_cast<bool>(event));
  EXPECT_NO_THROW(event.wait());
}

}  // namespace
}  // namespace moelink
