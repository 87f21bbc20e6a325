// The tokens of a dispatch that cross the network.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend/cpu/cpu_context.hpp"
#include "backend/cpu/network/relay_placer.hpp"
#include "backend/cpu/network/relay_wait.hpp"
#include "backend/cpu/row_writer.hpp"
#include "backend/dispatch_call.hpp"
#include "protocol/token_message.hpp"

namespace moelink {

// What the messages of a dispatch look like. Throws Error(kUnsupported) if a token does not fit
// one.
TokenMessage plan_token_message(const CpuContext& context, const DispatchCall& call);

// Sends this rank's tokens to the carriers of other groups, and forwards what it carries itself.
class RelayDispatch {
 public:
  // `own`: this rank's tokens; `present`: by rank, whether it takes part.
  RelayDispatch(CpuContext& context, const DispatchCall& call, const TokenRows& own,
                const RowWriter& writer, const std::vector<bool>& present, Epoch epoch);

  // Makes the network move, and sends and forwards a message of each stream that can go on. Returns
  // whether any could.
  bool step();
  bool is_done() const;
  // After a step in vain. Throws when a peer is lost or late; with Survival::kMask masks it
  // instead.
  void pause();

 private:
  struct Outgoing {
    Rank carrier;
    std::vector<std::int32_t> tokens;  // that go to its group
    std::size_t num_sent = 0;
    bool done = false;
  };
  struct Incoming {
    Rank source;
    RelayPlacer placer;
    std::int64_t num_received = 0;
    bool done = false;
  };

  bool send_some(Outgoing& stream);
  bool forward_some(Incoming& stream);
  void pack(const Outgoing& stream, std::size_t num_tokens, std::byte* content) const;
  void pack_entry(const Outgoing& stream, std::int32_t token, std::byte* entry) const;
  std::uint32_t destinations_word(int group, std::int32_t token, std::size_t word) const;
  void unpack(Incoming& stream, const std::byte* content, std::size_t num_tokens);
  void forward(Incoming& stream, const std::byte* content, std::size_t num_tokens);
  // Runs a step of a stream with `peer`. If the peer is lost and lost ranks are masked, returns
  // true, and the stream is done.
  template <class Step>
  bool survive(Rank peer, bool& done, const Step& step);

  CpuContext& context_;
  const DispatchCall& call_;
  TokenRows own_;
  const RowWriter& writer_;
  TokenMessage message_;
  Epoch epoch_;
  RelayWait wait_;
  int num_workers_;
  std::vector<Outgoing> outgoing_;
  std::vector<Incoming> incoming_;
  // Of the message that is being forwarded.
  std::vector<std::int32_t> ids_;
  std::vector<float> weights_;
};

}  // namespace moelink
