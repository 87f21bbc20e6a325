// Regions, puts in pieces, completions.
#include "transport/libfabric/libfabric_transport.hpp"

#include <rdma/fi_errno.h>

#include <algorithm>
#include <array>

#include "base/check.hpp"

namespace moelink {

namespace {

constexpr std::size_t kCompletionsPerRead = 32;

// Errors that say that the peer, not this side, is at fault.
bool is_loss(int error) {
  constexpr int kLosses[] = {FI_ECONNREFUSED, FI_ECONNRESET,  FI_ECONNABORTED, FI_ENOTCONN,
                             FI_EHOSTUNREACH, FI_ENETUNREACH, FI_EHOSTDOWN,    FI_ESHUTDOWN,
                             FI_ETIMEDOUT,    FI_EIO,         FI_ENOENT,       EPIPE};
  return std::ranges::find(kLosses, error) != std::end(kLosses);
}

ErrorCode code_of(int error) { return is_loss(error) ? ErrorCode::kPeerLost : ErrorCode::kSystem; }

}  // namespace

LibfabricTransport::LibfabricTransport(const TransportGroup& group, const TransportConfig& config,
                                       Parts parts)
    : Transport(group),
      regions_(group.rank, group.num_ranks, config.max_regions, config.num_counters),
      arrivals_({static_cast<std::uint32_t>(group.num_ranks), config.num_counters,
                 config.num_epoch_lanes}),
      provider_(std::move(parts.provider)),
      gpu_ladder_(std::move(parts.gpu_ladder)),
      stripe_limits_{.num_nics = parts.nics.size(), .min_piece_bytes = config.min_stripe_bytes},
      nics_(std::move(parts.nics)),
      connections_(static_cast<std::size_t>(group.num_ranks)),
      contexts_(static_cast<std::size_t>(config.max_outstanding)) {
  for (FabricContext& context : contexts_) free_contexts_.push_back(&context);
  stripe_limits_.num_nics = std::min(stripe_limits_.num_nics, contexts_.size());
}

void LibfabricTransport::meet(const std::vector<WireEndpoint>& peers) {
  for (std::size_t nic = 0; nic < nics_.size(); ++nic) {
    std::vector<std::string> addresses;
    for (const WireEndpoint& peer : peers) {
      addresses.push_back(peer.addresses[nic % peer.addresses.size()]);
    }
    nics_[nic]->insert_peers(addresses);
  }
  for (const WireEndpoint& peer : peers) num_peer_nics_.push_back(peer.addresses.size());
}

WireEndpoint LibfabricTransport::endpoint() const {
  WireEndpoint endpoint{.provider = provider_};
  for (const std::unique_ptr<FabricNic>& nic : nics_) {
    endpoint.addresses.push_back(nic->address());
    if (endpoint.addresses.back().size() > kMaxAddressBytes) {
      fail(ErrorCode::kUnsupported, "the address of {} has {} bytes, expected at most {}",
           nic->name(), endpoint.addresses.back().size(), kMaxAddressBytes);
    }
  }
  return endpoint;
}

std::string LibfabricTransport::describe() const {
  std::string text = fmt::format("libfabric {} over", provider_);
  for (const std::unique_ptr<FabricNic>& nic : nics_) text += fmt::format(" {}", nic->name());
  return text;
}

LocalRegion LibfabricTransport::register_region(std::span<std::byte> memory) {
  require_open("register_region");
  const LocalRegion region = regions_.add(memory);
  if (keys_.size() <= region.index()) keys_.resize(region.index() + 1);
  const std::uint64_t wanted_key = ++last_key_;
  try {
    for (const std::unique_ptr<FabricNic>& nic : nics_) {
      keys_[region.index()].push_back(nic->register_memory(memory, wanted_key));
    }
  } catch (const Error&) {
    keys_[region.index()].clear();
    regions_.remove(region);
    throw;
  }
  return region;
}

WireRegion LibfabricTransport::wire_region(LocalRegion region) const {
  const std::span<std::byte> memory = regions_.local(region);
  WireRegion wire{.address = nics_.front()->wire_address(memory),
                  .bytes = memory.size(),
                  .num_keys = static_cast<std::uint32_t>(nics_.size())};
  for (std::size_t nic = 0; nic < nics_.size(); ++nic) {
    wire.keys[nic] = ::fi_mr_key(keys_[region.index()][nic].get());
  }
  return wire;
}

void LibfabricTransport::deregister_region(LocalRegion region) {
  regions_.remove(region);
  keys_[region.index()].clear();
}

PeerRegion LibfabricTransport::import_region(Rank peer, const WireRegion& wire) {
  const bool is_known = peer.value() >= 0 && peer.value() < num_ranks();
  if (is_known && wire.num_keys != num_peer_nics_[peer.index()]) {
    fail(ErrorCode::kInvalidArgument,
         "import_region (rank {}): the region of rank {} has {} keys, expected {}, one per NIC",
         rank().value(), peer.value(), wire.num_keys, num_peer_nics_[peer.index()]);
  }
  return regions_.import(peer, wire);
}

LibfabricTransport::Piece LibfabricTransport::make_piece(const Put& put, const StripePlan& plan,
                                                         std::size_t index) const {
  const RegionTable::Imported& target = regions_.peer(put.target);
  const StripeRange range = plan.piece(index);
  Piece piece{.nic = (next_nic_ + index) % nics_.size(), .put_number = window_.num_opened() + 1};
  FabricWrite& write = piece.write;
  write.source = regions_.local(put.source).data() + put.source_offset + range.offset;
  write.source_descriptor = ::fi_mr_desc(keys_[put.source.index()][piece.nic].get());
  write.bytes = range.bytes;
  write.peer = target.peer;
  write.target = target.wire.address + put.target_offset + range.offset;
  write.target_key = target.wire.keys[piece.nic % target.wire.num_keys];
  write.has_immediate = put.arrival.has_value();
  if (!put.arrival) return piece;
  write.immediate = Immediate::of(*put.arrival, rank(), put.log2_pieces + plan.log2_pieces).word();
  return piece;
}

PutResult LibfabricTransport::try_put(const Put& put) {
  require_open("put");
  regions_.check(put);
  const Rank peer = regions_.peer(put.target).peer;
  check_peer(peer, "put");
  StripeLimits limits = stripe_limits_;
  limits.log2_pieces_so_far = put.log2_pieces;
  const StripePlan plan = plan_stripes(put.bytes, limits);
  if (!pending_.empty() || free_contexts_.size() < plan.num_pieces()) return PutResult::kRefused;

  const ssize_t result = issue(make_piece(put, plan, 0));
  if (result == -FI_EAGAIN) {
    if (gives_up(peer)) check_peer(peer, "put");
    return PutResult::kRefused;
  }
  if (result < 0) {
    note_peer_failure(peer, code_of(static_cast<int>(-result)),
                      "libfabric refused a put: " + fabric_library().describe(result));
    check_peer(peer, "put");
  }
  for (std::size_t i = 1; i < plan.num_pieces(); ++i) later_.push_back(make_piece(put, plan, i));
  window_.open(peer, static_cast<std::uint32_t>(plan.num_pieces()));
  next_nic_ = (next_nic_ + plan.num_pieces()) % nics_.size();
  for (const Piece& piece : later_) issue_or_keep(piece);
  later_.clear();
  return PutResult::kAccepted;
}

ssize_t LibfabricTransport::issue(const Piece& piece) {
  FabricContext& context = *free_contexts_.back();
  context.peer = piece.write.peer;
  context.put_number = piece.put_number;
  const ssize_t result = nics_[piece.nic]->write(piece.write, context);
  if (result != 0) return result;
  free_contexts_.pop_back();
  connections_[piece.write.peer.index()].note_accepted();
  return result;
}

bool LibfabricTransport::gives_up(Rank peer) {
  if (!connections_[peer.index()].note_refused(ConnectionWatch::Clock::now())) return false;
  note_peer_failure(
      peer, ErrorCode::kPeerLost,
      fmt::format("its connection is lost and cannot be made again for {} ms: has it died?",
                  ConnectionWatch::kPatience.count()));
  return true;
}

void LibfabricTransport::issue_or_keep(const Piece& piece) {
  const ssize_t result = free_contexts_.empty() ? -FI_EAGAIN : issue(piece);
  if (result == -FI_EAGAIN) return pending_.push_back(piece);
  if (result < 0) fail_piece(piece, result);
}

void LibfabricTransport::fail_piece(const Piece& piece, ssize_t result) {
  note_peer_failure(piece.write.peer, code_of(static_cast<int>(-result)),
                    "libfabric refused a put: " + fabric_library().describe(result));
  window_.complete(piece.put_number);
}

int LibfabricTransport::retry_pending() {
  int num_issued = 0;
  while (!pending_.empty() && !free_contexts_.empty()) {
    const Piece piece = pending_.front();
    const ssize_t result = issue(piece);
    if (result == -FI_EAGAIN && !gives_up(piece.write.peer)) break;
    pending_.pop_front();
    if (result < 0) fail_piece(piece, result);
    ++num_issued;
  }
  return num_issued;
}

int LibfabricTransport::progress() {
  require_open("progress");
  int num_events = 0;
  for (const std::unique_ptr<FabricNic>& nic : nics_) num_events += read_queue(*nic);
  return num_events + retry_pending();
}

int LibfabricTransport::read_queue(FabricNic& nic) {
  std::array<fi_cq_data_entry, kCompletionsPerRead> entries;
  const ssize_t num_read = nic.read_completions(entries);
  if (num_read == -FI_EAGAIN) return 0;
  if (num_read == -FI_EAVAIL) {
    take_error(nic);
    return 1;
  }
  if (num_read < 0) {
    fail(ErrorCode::kSystem, "rank {}: progress: cannot read the completions of {}: {}",
         rank().value(), nic.name(), fabric_library().describe(num_read));
  }
  for (ssize_t i = 0; i < num_read; ++i) take_completion(nic, entries[static_cast<std::size_t>(i)]);
  return static_cast<int>(num_read);
}

void LibfabricTransport::take_completion(FabricNic& nic, const fi_cq_data_entry& entry) {
  if ((entry.flags & FI_REMOTE_CQ_DATA) != 0) {
    count(entry.data);
    nic.restore_receive(entry.op_context);
  } else if (entry.op_context != nullptr) {
    auto& context = *static_cast<FabricContext*>(entry.op_context);
    connections_[context.peer.index()].note_completed();
    release(context);
  }
}

void LibfabricTransport::count(std::uint64_t immediate) {
  const Immediate named(static_cast<std::uint32_t>(immediate));
  if (arrivals_.count(named)) return;
  note_peer_failure(named.source(), ErrorCode::kInvalidArgument,
                    "it names a counter that does not exist here: num_counters differs");
}

void LibfabricTransport::release(FabricContext& context) {
  window_.complete(context.put_number);
  free_contexts_.push_back(&context);
}

void LibfabricTransport::take_error(FabricNic& nic) {
  std::string text;
  const fi_cq_err_entry entry = nic.read_error(text);
  if (entry.op_context == nullptr || entry.err == FI_ECANCELED) return;
  auto& context = *static_cast<FabricContext*>(entry.op_context);
  if (context.put_number == 0) {
    fail(ErrorCode::kSystem, "rank {}: progress: a receive on {} failed: {}", rank().value(),
         nic.name(), text);
  }
  note_peer_failure(context.peer, code_of(entry.err), "a put failed: " + text);
  connections_[context.peer.index()].note_failed();
  release(context);
}

void LibfabricTransport::close() {
  note_closed();
  keys_.clear();  // before the endpoints that they may be bound to
  nics_.clear();
}

}  // namespace moelink
