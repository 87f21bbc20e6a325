// Frames over libsodium's secret stream, which numbers and authenticates every one of them.
#include "bootstrap/tcp/channel.hpp"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <span>
#include <utility>

#include "bootstrap/tcp/socket.hpp"
#include "protocol/byte_order.hpp"

namespace moelink::tcp {

namespace {

constexpr std::size_t kHeaderBytes = crypto_secretstream_xchacha20poly1305_HEADERBYTES;
constexpr std::size_t kCipherOverheadBytes = crypto_secretstream_xchacha20poly1305_ABYTES + 1;
constexpr std::size_t kReceiveChunkBytes = 64 * 1024;

std::uint8_t* bytes_of(std::string& text) { return reinterpret_cast<std::uint8_t*>(text.data()); }

const std::uint8_t* bytes_of(const std::string& text) {
  return reinterpret_cast<const std::uint8_t*>(text.data());
}

}  // namespace

Channel::Channel(UniqueFd socket, const ChannelKeys& keys, std::size_t max_payload_bytes)
    : socket_(std::move(socket)),
      keys_(keys),
      max_cipher_bytes_(max_payload_bytes + kCipherOverheadBytes),
      output_(kHeaderBytes, '\0') {
  crypto_secretstream_xchacha20poly1305_init_push(&send_state_, bytes_of(output_),
                                                  keys_.send.bytes.data());
}

void Channel::queue(rendezvous::FrameKind kind, std::shared_ptr<const std::string> payload) {
  outbox_.push_back({kind, std::move(payload)});
}

void Channel::queue(rendezvous::FrameKind kind, std::string payload) {
  queue(kind, std::make_shared<const std::string>(std::move(payload)));
}

void Channel::drop_unsent() { outbox_.clear(); }

void Channel::exchange() {
  if (open()) receive_input();
  if (open()) send_output();
}

std::optional<Frame> Channel::next_frame() {
  if (inbox_.empty()) return std::nullopt;
  Frame frame = std::move(inbox_.front());
  inbox_.pop_front();
  return frame;
}

void Channel::finish_sending() { ::shutdown(socket_.get(), SHUT_WR); }

void Channel::send_output() {
  while (has_output()) {
    if (output_.empty()) encrypt_next();
    const auto unsent =
        std::span(bytes_of(std::as_const(output_)), output_.size()).subspan(output_sent_);
    const IoResult sent = send_some(socket_.get(), unsent);
    if (sent.status == IoStatus::kClosed) close("its connection closed");
    if (sent.status != IoStatus::kMoved) return;
    output_sent_ += sent.num_bytes;
    if (output_sent_ == output_.size()) {
      output_.clear();
      output_sent_ = 0;
    }
  }
}

void Channel::encrypt_next() {
  const Outgoing next = std::move(outbox_.front());
  outbox_.pop_front();
  std::string plain;
  plain.reserve(next.payload->size() + 1);
  plain.push_back(static_cast<char>(next.kind));
  plain.append(*next.payload);

  const std::size_t cipher_bytes = next.payload->size() + kCipherOverheadBytes;
  output_.resize(rendezvous::kFrameLengthBytes + cipher_bytes);
  store_little_endian(static_cast<std::uint32_t>(cipher_bytes), bytes_of(output_));
  crypto_secretstream_xchacha20poly1305_push(
      &send_state_, bytes_of(output_) + rendezvous::kFrameLengthBytes, nullptr, bytes_of(plain),
      plain.size(), nullptr, 0, crypto_secretstream_xchacha20poly1305_TAG_MESSAGE);
}

void Channel::receive_input() {
  while (open()) {
    const std::size_t known = input_.size();
    input_.resize(known + kReceiveChunkBytes);
    const IoResult received =
        receive_some(socket_.get(), std::span(bytes_of(input_), input_.size()).subspan(known));
    input_.resize(known + received.num_bytes);
    if (received.status == IoStatus::kClosed) close("its connection closed");
    if (received.status != IoStatus::kMoved) return;
    if (!receiving_ && !take_stream_header()) continue;
    while (open() && take_frame()) {
    }
  }
}

bool Channel::take_stream_header() {
  if (input_.size() < kHeaderBytes) return false;
  crypto_secretstream_xchacha20poly1305_init_pull(&receive_state_, bytes_of(input_),
                                                  keys_.receive.bytes.data());
  input_.erase(0, kHeaderBytes);
  receiving_ = true;
  return true;
}

bool Channel::take_frame() {
  if (input_.size() < rendezvous::kFrameLengthBytes) return false;
  const std::size_t cipher_bytes = load_little_endian<std::uint32_t>(bytes_of(input_));
  if (cipher_bytes < kCipherOverheadBytes || cipher_bytes > max_cipher_bytes_) {
    close(fmt::format("it announced a frame of {} bytes, expected {} to {}", cipher_bytes,
                      kCipherOverheadBytes, max_cipher_bytes_));
    return false;
  }
  if (input_.size() < rendezvous::kFrameLengthBytes + cipher_bytes) return false;
  decrypt(cipher_bytes);
  input_.erase(0, rendezvous::kFrameLengthBytes + cipher_bytes);
  return true;
}

void Channel::decrypt(std::size_t cipher_bytes) {
  std::string plain(cipher_bytes - kCipherOverheadBytes + 1, '\0');
  unsigned char tag = 0;
  const int failed = crypto_secretstream_xchacha20poly1305_pull(
      &receive_state_, bytes_of(plain), nullptr, &tag,
      bytes_of(input_) + rendezvous::kFrameLengthBytes, cipher_bytes, nullptr, 0);
  if (failed != 0) return close("a frame from it is not authentic");
  const auto kind = static_cast<std::uint8_t>(plain.front());
  if (kind == 0 || kind > rendezvous::kLastFrameKind) {
    return close(fmt::format("it sent a frame of unknown kind {}", kind));
  }
  plain.erase(0, 1);
  inbox_.push_back({static_cast<rendezvous::FrameKind>(kind), std::move(plain)});
}

void Channel::close(std::string reason) {
  if (close_reason_.empty()) close_reason_ = std::move(reason);
}

}  // namespace moelink::tcp
