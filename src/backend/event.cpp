// Events of the public interface.
#include "moelink/event.hpp"

#include "backend/event_state.hpp"

namespace moelink {

bool Event::pending() const { return state_ && state_->pending(); }

void Event::wait() const {
  if (state_) state_->wait();
}

void Event::wait_on(void* cuda_stream) const {
  if (state_) state_->wait_on(cuda_stream);
}

}  // namespace moelink
