// Sets descriptors aside, then uses them to link up.
#include "symm/peer_meeting.hpp"

#include <fcntl.h>

#include <cerrno>
#include <string_view>

#include "base/check.hpp"

namespace moelink {
namespace {

constexpr int kDescriptorsPerPeer = 2;  // a socket, and for a while what the peer gives
constexpr int kSpareDescriptors = 16;

}  // namespace

PeerMeeting::PeerMeeting(int num_ranks) : listener_(num_ranks) {
  reserve_descriptors(num_ranks * kDescriptorsPerPeer + kSpareDescriptors);
}

void PeerMeeting::reserve_descriptors(int count) {
  for (int i = 0; i < count; ++i) {
    reserved_.emplace_back(::fcntl(listener_.socket(), F_DUPFD_CLOEXEC, 0));
    if (reserved_.back().valid()) continue;
    const int error_number = errno;
    reserved_.clear();  // others in the process may need some
    fail_errno(error_number, "{} more open files are needed (RLIMIT_NOFILE, ulimit -n)", count - i);
  }
}

std::unique_ptr<PeerLinks> PeerMeeting::link_up(Rank rank, const std::vector<std::string>& texts,
                                                const Deadline& deadline) {
  reserved_.clear();
  std::vector<PeerTicket> tickets;
  for (const std::string& text : texts) {
    tickets.push_back(PeerTicket::decode(std::string_view(text).substr(0, PeerTicket::kTextBytes)));
  }
  return std::make_unique<PeerLinks>(rank, listener_, tickets, deadline);
}

}  // namespace moelink
