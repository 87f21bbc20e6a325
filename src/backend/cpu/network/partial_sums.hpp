// Sums of this rank's tokens that the carriers of other groups send back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "backend/cpu/cpu_context.hpp"
#include "backend/cpu/network/relay_wait.hpp"
#include "backend/routing_state.hpp"
#include "protocol/token_message.hpp"

namespace moelink {

// Messages stay where the network has put them until their sums are used. Only when they fill the
// ring, so that their sender could not go on, are they copied: nobody who takes in sums ever stops
// others.
class PartialSums {
 public:
  // `present`: by rank, whether it takes part.
  PartialSums(CpuContext& context, const RoutingState& state, const PartialMessage& message,
              const std::vector<bool>& present);

  // Takes in what has arrived. Returns whether anything has.
  bool collect();
  // Until the sums of all these tokens are here.
  void await(IndexRange tokens, RelayWait& wait);
  // The tokens up to this one are done with.
  void release_before(std::int64_t token, const Deadline& deadline);

  // Of a token that has been awaited: null if it did not go to the group, or if that is lost.
  const std::byte* row(int group, std::int64_t token) const;
  const float* weights(int group, std::int64_t token) const;

 private:
  struct Message {
    std::size_t first = 0;  // place of its first token among those of the stream
    std::size_t num_rows = 0;
    const std::byte* content = nullptr;
    std::vector<std::byte> copy;  // of the content, once it had to leave the ring
  };
  struct Stream {
    Rank carrier;
    std::vector<std::int32_t> tokens;  // that went to the group
    std::size_t num_arrived = 0;
    std::size_t num_in_ring = 0;  // messages that are still there: the last ones of the list
    std::deque<Message> messages;
    bool lost = true;
  };
  struct Found {
    const Message* message = nullptr;
    std::size_t index = 0;
  };

  bool collect_from(Stream& stream);
  void move_out_oldest(Stream& stream);
  std::size_t num_awaited(const Stream& stream, std::int64_t end) const;
  void lose(Stream& stream, const Error& error, RelayWait& wait);
  Found find(int group, std::int64_t token) const;

  CpuContext& context_;
  PartialMessage message_;
  Deadline deadline_;
  std::vector<Stream> streams_;  // by group; of near groups nothing is set
};

}  // namespace moelink
