// Channel: frames arrive whole, once and in order, or the channel closes and says why.
#include "bootstrap/tcp/channel.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "bootstrap/tcp_world.hpp"

namespace moelink::test {
namespace {

using rendezvous::FrameKind;
using tcp::Channel;
using tcp::ChannelKeys;

constexpr std::size_t kMaxPayload = 1 << 20;

std::pair<UniqueFd, UniqueFd> connected_sockets() {
  int ends[2] = {-1, -1};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

ChannelKeys keys_with(std::uint8_t send, std::uint8_t receive) {
  ChannelKeys keys;
  keys.send.bytes.fill(send);
  keys.receive.bytes.fill(receive);
  return keys;
}

// A channel whose other side is in the hands of the test.
class TcpChannel : public testing::Test {
 protected:
  TcpChannel() {
    auto [ours, theirs] = connected_sockets();
    channel_ = std::make_unique<Channel>(std::move(ours), keys_with(1, 2), kMaxPayload);
    peer_ = std::make_unique<RawConnection>(std::move(theirs));
  }

  // What an authentic sender puts on the wire: the stream's header, then the frames.
  static std::string wire_of(const std::vector<std::string>& payloads) {
    auto [ours, theirs] = connected_sockets();
    Channel sender(std::move(ours), keys_with(2, 1), kMaxPayload);
    for (const auto& payload : payloads) sender.queue(FrameKind::kPart, payload);
    sender.exchange();
    std::string wire(65536, '\0');
    const auto received = tcp::receive_some(
        theirs.get(), {reinterpret_cast<std::uint8_t*>(wire.data()), wire.size()});
    wire.resize(received.num_bytes);
    return wire;
  }

  void deliver(const std::string& bytes) {
    peer_->send(bytes);
    channel_->exchange();
  }

  std::string next_payload() {
    auto frame = channel_->next_frame();
    return frame ? frame->payload : std::string("no frame");
  }

  std::unique_ptr<Channel> channel_;
  std::unique_ptr<RawConnection> peer_;
};

constexpr std::size_t kStreamHeaderBytes = 24;
// Length, authentication, kind.
constexpr std::size_t kFrameOverheadBytes = 4 + 17 + 1;

TEST_F(TcpChannel, DeliversFramesInOrderHoweverTheyAreSplit) {
  const std::string wire = wire_of({"first", "", "third"});
  for (const char byte : wire) deliver(std::string(1, byte));
  EXPECT_EQ(next_payload(), "first");
  EXPECT_EQ(next_payload(), "");
  EXPECT_EQ(next_payload(), "third");
  EXPECT_EQ(next_payload(), "no frame");
  EXPECT_TRUE(channel_->open()) << channel_->close_reason();
}

TEST_F(TcpChannel, DoesNotShowThePayloadOnTheWire) {
  EXPECT_EQ(wire_of({"a payload to look for"}).find("payload"), std::string::npos);
}

TEST_F(TcpChannel, ClosesWhenAnyByteOfAFrameIsChanged) {
  const std::string wire = wire_of({"payload"});
  for (std::size_t at = 0; at < wire.size(); ++at) {
    auto [ours, theirs] = connected_sockets();
    Channel channel(std::move(ours), keys_with(1, 2), kMaxPayload);
    std::string forged = wire;
    forged[at] = static_cast<char>(forged[at] ^ 0x08);
    RawConnection(std::move(theirs)).send(forged);
    channel.exchange();
    EXPECT_FALSE(channel.has_frame()) << "byte " << at;
    EXPECT_FALSE(channel.open()) << "byte " << at;
  }
}

TEST_F(TcpChannel, ClosesWhenAFrameIsRepeated) {
  const std::string wire = wire_of({"payload"});
  deliver(wire + wire.substr(kStreamHeaderBytes));
  EXPECT_EQ(next_payload(), "payload");
  EXPECT_EQ(next_payload(), "no frame");
  EXPECT_EQ(channel_->close_reason(), "a frame from it is not authentic");
}

TEST_F(TcpChannel, ClosesWhenFramesAreSwapped) {
  const std::string wire = wire_of({"one", "two"});
  const std::size_t frame_bytes = kFrameOverheadBytes + 3;
  ASSERT_EQ(wire.size(), kStreamHeaderBytes + 2 * frame_bytes);
  deliver(wire.substr(0, kStreamHeaderBytes) + wire.substr(kStreamHeaderBytes + frame_bytes) +
          wire.substr(kStreamHeaderBytes, frame_bytes));
  EXPECT_EQ(next_payload(), "no frame");
  EXPECT_FALSE(channel_->open());
}

TEST_F(TcpChannel, ClosesAtTheLengthOfAFrameThatIsTooLarge) {
  deliver(std::string(kStreamHeaderBytes, 'h') + std::string("\xff\xff\xff\xff", 4));
  EXPECT_NE(channel_->close_reason().find("frame of 4294967295 bytes"), std::string::npos)
      << channel_->close_reason();
}

TEST_F(TcpChannel, ClosesAtTheLengthOfAFrameThatIsTooShort) {
  deliver(std::string(kStreamHeaderBytes, 'h') + std::string("\x11\0\0\0", 4));
  EXPECT_NE(channel_->close_reason().find("frame of 17 bytes"), std::string::npos)
      << channel_->close_reason();
}

TEST_F(TcpChannel, KeepsFramesThatCameBeforeTheOtherSideClosed) {
  peer_->send(wire_of({"last words"}));
  peer_->close();
  channel_->exchange();
  EXPECT_FALSE(channel_->open());
  EXPECT_EQ(next_payload(), "last words");
}

TEST_F(TcpChannel, SendsMoreThanTheSocketTakesAtOnce) {
  auto [ours, theirs] = connected_sockets();
  Channel sender(std::move(ours), keys_with(1, 2), kMaxPayload);
  Channel receiver(std::move(theirs), keys_with(2, 1), kMaxPayload);
  const auto blob = std::make_shared<const std::string>(kMaxPayload, 'b');
  for (int i = 0; i < 5; ++i) sender.queue(FrameKind::kGathered, blob);
  int num_received = 0;
  for (int round = 0; round < 100'000 && num_received < 5; ++round) {
    sender.exchange();
    receiver.exchange();
    while (const auto frame = receiver.next_frame()) {
      EXPECT_TRUE(frame->payload == *blob);
      ++num_received;
    }
  }
  EXPECT_EQ(num_received, 5);
  EXPECT_FALSE(sender.has_output());
}

}  // namespace
}  // namespace moelink::test
