// An authenticated, encrypted stream of frames over a connected socket; never blocks.
#pragma once

#include <sodium.h>

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "base/unique_fd.hpp"
#include "bootstrap/tcp/handshake.hpp"
#include "protocol/rendezvous_frame.hpp"

namespace moelink::tcp {

struct Frame {
  rendezvous::FrameKind kind = rendezvous::FrameKind::kReady;
  std::string payload;
};

struct ChannelKeys {
  Key send;
  Key receive;
};

// Frames arrive complete, in order, once, and only from a sender with the session's key; anything
// else closes the channel with a reason.
class Channel {
 public:
  Channel(UniqueFd socket, const ChannelKeys& keys, std::size_t max_payload_bytes);

  int fd() const { return socket_.get(); }

  // Queues a frame. Payloads are shared so that one blob can go to many channels.
  void queue(rendezvous::FrameKind kind, std::shared_ptr<const std::string> payload);
  void queue(rendezvous::FrameKind kind, std::string payload);
  // Forgets the frames of which no byte has been sent yet.
  void drop_unsent();
  bool has_output() const { return open() && (!output_.empty() || !outbox_.empty()); }

  // Sends and receives what is possible now. Frames that arrived before the other side closed are
  // kept.
  void exchange();
  std::optional<Frame> next_frame();
  bool has_frame() const { return !inbox_.empty(); }

  bool open() const { return close_reason_.empty(); }
  // Why the channel is no longer usable; empty while it is.
  const std::string& close_reason() const { return close_reason_; }
  // Tells the other side that nothing more will be sent.
  void finish_sending();

 private:
  using StreamState = crypto_secretstream_xchacha20poly1305_state;
  struct Outgoing {
    rendezvous::FrameKind kind;
    std::shared_ptr<const std::string> payload;
  };

  void send_output();
  void encrypt_next();
  void receive_input();
  // Takes what input_ starts with; false when more bytes are needed.
  bool take_stream_header();
  bool take_frame();
  void decrypt(std::size_t cipher_bytes);
  void close(std::string reason);

  UniqueFd socket_;
  ChannelKeys keys_;
  std::size_t max_cipher_bytes_;

  StreamState send_state_;
  std::deque<Outgoing> outbox_;
  std::string output_;  // encrypted, partly sent
  std::size_t output_sent_ = 0;

  StreamState receive_state_;
  bool receiving_ = false;  // the header of the incoming stream has been read
  std::string input_;       // received, not yet decrypted
  std::deque<Frame> inbox_;
  std::string close_reason_;
};

}  // namespace moelink::tcp
