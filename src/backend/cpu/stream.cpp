// Execution of stream tasks, and their events.
#include "backend/cpu/stream.hpp"

namespace moelink {

void TaskEvent::complete(std::exception_ptr error) {
  {
    const std::lock_guard lock(mutex_);
    pending_ = false;
    error_ = std::move(error);
  }
  completed_.notify_all();
}

bool TaskEvent::pending() const {
  const std::lock_guard lock(mutex_);
  return pending_;
}

void TaskEvent::wait() const {
  std::unique_lock lock(mutex_);
  completed_.wait(lock, [this] { return !pending_; });  // tasks end by their own deadlines
  if (error_) std::rethrow_exception(error_);
}

Stream::~Stream() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Event Stream::enqueue(Task task) {
  auto event = std::make_shared<TaskEvent>();
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(Entry{std::move(task), event});
    if (!thread_.joinable()) thread_ = std::thread([this] { serve(); });
  }
  changed_.notify_all();
  return Event(std::move(event));
}

void Stream::run(const Task& task) {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return queue_.empty() && !busy_; });
    busy_ = true;
  }
  std::exception_ptr error;
  try {
    task();
  } catch (...) {
    error = std::current_exception();
  }
  {
    const std::lock_guard lock(mutex_);
    busy_ = false;
  }
  changed_.notify_all();
  if (error) std::rethrow_exception(error);
}

void Stream::serve() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return !busy_ && (closing_ || !queue_.empty()); });
    if (queue_.empty()) return;
    Entry entry = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    lock.unlock();
    std::exception_ptr error;
    try {
      entry.task();
    } catch (...) {
      error = std::current_exception();
    }
    entry.task = nullptr;  // releases what the task held before anybody learns that it is done
    entry.event->complete(std::move(error));
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

}  // namespace moelink
