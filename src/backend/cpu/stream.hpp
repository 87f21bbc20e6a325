// A stream of the CPU backend: a queue of tasks that one thread executes in order.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "backend/event_state.hpp"
#include "moelink/event.hpp"

namespace moelink {

// Shared by the task that completes it and by everybody who waits for it.
class TaskEvent final : public EventState {
 public:
  void complete(std::exception_ptr error);
  bool pending() const override;
  void wait() const override;  // rethrows the error of complete()

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable completed_;
  bool pending_ = true;
  std::exception_ptr error_;
};

// Thread-safe. Its thread starts with the first enqueued task.
class Stream {
 public:
  using Task = std::function<void()>;

  Stream() = default;
  ~Stream();  // finishes the queued tasks
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Appends a task; its event completes with it, carrying its exception if it throws. A task must
  // not own the last reference to the stream.
  Event enqueue(Task task);

  // Runs a task after all tasks enqueued before and returns when it is done; throws what it throws.
  // On an idle stream the calling thread executes it itself: no hand-over, no wake-up.
  void run(const Task& task);

 private:
  struct Entry {
    Task task;
    std::shared_ptr<TaskEvent> event;
  };

  void serve();

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Entry> queue_;
  bool busy_ = false;  // a task is being executed, here or on a caller's thread
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace moelink
