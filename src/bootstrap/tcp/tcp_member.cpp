// A point of the star.
#include "bootstrap/tcp/tcp_member.hpp"

#include <fmt/format.h>

#include <utility>

#include "bootstrap/tcp/blob_limit.hpp"
#include "bootstrap/tcp/lobby.hpp"
#include "bootstrap/tcp/poll_set.hpp"

namespace moelink::tcp {

using rendezvous::FrameKind;

namespace {

constexpr std::chrono::nanoseconds kMaxSleep = std::chrono::seconds(1);
// How long rank 0 may take to say which ranks are missing.
constexpr std::chrono::milliseconds kAnswerPatience{1000};

}  // namespace

TcpMember::TcpMember(const Joiner& joiner, const Credentials& credentials,
                     const TcpOptions& options, const Deadline& deadline)
    : joiner_(joiner),
      options_(options),
      channel_(join_host(joiner, credentials, options, deadline)) {
  await_frame(FrameKind::kReady, kRendezvousName, deadline);
}

std::vector<std::string> TcpMember::all_gather(const std::string& blob, const char* what,
                                               const Deadline& deadline) {
  if (failure_) throw_earlier_failure(rank(), what, *failure_);
  check_blob_size(rank(), what, blob.size(), options_.max_blob_bytes);
  ++sequence_;
  last_patience_.reset();
  channel_->queue(FrameKind::kPart, rendezvous::encode_part(sequence_, what, blob));
  std::vector<std::string> blobs;
  blobs.reserve(static_cast<std::size_t>(num_ranks()));
  for (int i = 0; i < num_ranks(); ++i) {
    blobs.push_back(await_frame(FrameKind::kGathered, what, deadline).payload);
  }
  return blobs;
}

Frame TcpMember::await_frame(FrameKind kind, std::string_view what, const Deadline& deadline) {
  Frame frame = await_any_frame(what, deadline);
  if (frame.kind == kind) return frame;
  if (frame.kind == FrameKind::kFailure) {
    if (const auto note = rendezvous::decode_failure(frame.payload)) {
      give_up({note->code, note->text});
    }
  }
  give_up(lost_rank_failure(what, Rank(0), "it sent a frame that was not expected"));
}

Frame TcpMember::await_any_frame(std::string_view what, const Deadline& deadline) {
  while (true) {
    if (auto frame = channel_->next_frame()) return std::move(*frame);
    if (!channel_->open()) {
      give_up(lost_rank_failure(
          what, Rank(0), fmt::format("{}: {}", joiner_.host.describe(), channel_->close_reason())));
    }
    if (deadline.expired()) stop_waiting(what, deadline);
    PollSet set;
    set.add(channel_->fd(), channel_->has_output() ? POLLIN | POLLOUT : POLLIN);
    set.wait((last_patience_ ? *last_patience_ : deadline).remaining(kMaxSleep));
    channel_->exchange();
  }
}

void TcpMember::stop_waiting(std::string_view what, const Deadline& deadline) {
  if (!last_patience_) {
    last_patience_ = Deadline::after(kAnswerPatience);
    const auto span_ms = static_cast<std::uint64_t>(deadline.span().count());
    channel_->queue(FrameKind::kGiveUp, rendezvous::encode(rendezvous::GiveUp{sequence_, span_ms}));
  } else if (last_patience_->expired()) {
    Failure failure = missing_ranks_failure(what, {Rank(0)}, deadline.span());
    failure.text += "; others may be missing as well, but only rank 0 knows";
    give_up(failure);
  }
}

void TcpMember::give_up(const Failure& failure) {
  failure_ = failure;
  channel_.reset();  // tells rank 0
  throw_failure(rank(), failure);
}

}  // namespace moelink::tcp
