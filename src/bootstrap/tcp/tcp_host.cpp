// The centre of the star.
#include "bootstrap/tcp/tcp_host.hpp"

#include <fmt/format.h>

#include <memory>
#include <utility>

#include "bootstrap/tcp/blob_limit.hpp"
#include "bootstrap/tcp/lobby.hpp"
#include "bootstrap/tcp/poll_set.hpp"

namespace moelink::tcp {

namespace {

constexpr std::chrono::nanoseconds kMaxSleep = std::chrono::seconds(1);

std::vector<Rank> ranks_without_blob(const std::vector<std::optional<std::string>>& blobs) {
  std::vector<Rank> ranks;
  for (std::size_t i = 0; i < blobs.size(); ++i) {
    if (!blobs[i]) ranks.push_back(Rank(static_cast<std::int32_t>(i)));
  }
  return ranks;
}

}  // namespace

TcpHost::TcpHost(UniqueFd listener, const Credentials& credentials, int num_ranks,
                 const TcpOptions& options, const Deadline& deadline)
    : options_(options), peers_(num_ranks) {
  Lobby(std::move(listener), credentials, num_ranks, options).wait_for_all(peers_, deadline);
}

std::vector<std::string> TcpHost::all_gather(const std::string& blob, const char* what,
                                             const Deadline& deadline) {
  if (failure_) throw_earlier_failure(rank(), what, *failure_);
  check_blob_size(rank(), what, blob.size(), options_.max_blob_bytes);
  const std::string name = std::string(what).substr(0, rendezvous::kMaxWhatBytes);
  ++sequence_;
  Blobs blobs(static_cast<std::size_t>(num_ranks()));
  blobs[0] = blob;
  gather(blobs, name, deadline);
  distribute(blobs, name, deadline);

  std::vector<std::string> result;
  result.reserve(blobs.size());
  for (auto& gathered : blobs) result.push_back(std::move(*gathered));
  return result;
}

void TcpHost::gather(Blobs& blobs, const std::string& what, const Deadline& deadline) {
  // Before the first judgement, so that it rests on all that the others have said so far.
  run_round(Deadline::after(std::chrono::milliseconds(0)));
  while (true) {
    collect_parts(blobs, what);
    const std::vector<Rank> missing = ranks_without_blob(blobs);
    if (const auto failure = peers_.find_failure(what, sequence_, missing)) give_up(*failure);
    if (missing.empty()) return;
    if (deadline.expired()) give_up(missing_ranks_failure(what, missing, deadline.span()));
    run_round(deadline);
  }
}

void TcpHost::collect_parts(Blobs& blobs, const std::string& what) {
  for (Rank rank(1); rank.value() < num_ranks(); rank = rank.next()) {
    auto& blob = blobs[rank.index()];
    if (blob) continue;
    auto part = peers_.take_part(rank);
    if (!part) continue;
    if (part->what != what) give_up(mismatch_failure(Rank(0), what, rank, part->what));
    if (part->sequence != sequence_) {
      give_up({ErrorCode::kInternal, fmt::format("{}: rank {} is in collective {}, expected {}",
                                                 what, rank.value(), part->sequence, sequence_)});
    }
    blob = std::move(part->blob);
  }
}

void TcpHost::distribute(const Blobs& blobs, const std::string& what, const Deadline& deadline) {
  for (const auto& blob : blobs) {
    peers_.send_to_all(rendezvous::FrameKind::kGathered,
                       std::make_shared<const std::string>(*blob));
  }
  while (true) {
    // A rank that has taken everything may leave: the next collective will notice.
    const std::vector<Rank> unfinished = peers_.with_output();
    if (unfinished.empty()) return;
    if (deadline.expired()) give_up(missing_ranks_failure(what, unfinished, deadline.span()));
    run_round(deadline);
  }
}

void TcpHost::run_round(const Deadline& deadline) {
  PollSet set;
  peers_.watch(set);
  set.wait(deadline.remaining(kMaxSleep));
  peers_.exchange(set);
}

void TcpHost::give_up(const Failure& failure) {
  failure_ = failure;
  peers_.announce(failure);
  throw_failure(rank(), failure);
}

}  // namespace moelink::tcp
