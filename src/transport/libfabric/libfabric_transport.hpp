// A transport over libfabric: puts, immediates and completions on one or more cards.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "protocol/wire_endpoint.hpp"
#include "transport/completion_window.hpp"
#include "transport/connection_watch.hpp"
#include "transport/libfabric/fabric_nic.hpp"
#include "transport/stripe_plan.hpp"
#include "transport/transport.hpp"

namespace moelink {

class LibfabricTransport final : public Transport {
 public:
  struct Parts {
    std::string provider;  // with its layers, such as "tcp;ofi_rxm"
    std::vector<std::unique_ptr<FabricNic>> nics;
    std::vector<GpuRegistration> gpu_ladder;
  };

  LibfabricTransport(const TransportGroup& group, const TransportConfig& config, Parts parts);
  ~LibfabricTransport() override { close(); }

  // Where the peers' cards are, by rank. Before the first put.
  void meet(const std::vector<WireEndpoint>& peers);
  WireEndpoint endpoint() const;

  std::string describe() const override;
  std::vector<GpuRegistration> gpu_ladder() const override { return gpu_ladder_; }
  LocalRegion register_region(std::span<std::byte> memory) override;
  WireRegion wire_region(LocalRegion region) const override;
  void deregister_region(LocalRegion region) override;
  PeerRegion import_region(Rank peer, const WireRegion& wire) override;
  const RegionTable& regions() const override { return regions_; }

  PutResult try_put(const Put& put) override;
  int progress() override;

  const ArrivalCounters& arrivals() const override { return arrivals_; }
  std::uint64_t num_accepted() const override { return window_.num_opened(); }
  std::uint64_t completed_through() const override { return window_.completed_through(); }
  std::optional<Rank> oldest_incomplete_peer() const override { return window_.oldest_peer(); }
  void close() override;

 private:
  struct Piece {
    std::size_t nic = 0;
    FabricWrite write;
    std::uint64_t put_number = 0;
  };

  Piece make_piece(const Put& put, const StripePlan& plan, std::size_t index) const;
  // 0, -FI_EAGAIN, or the error, after which the piece is not under way.
  ssize_t issue(const Piece& piece);
  // The network refuses a put to the peer: notes its loss once that has gone on for too long, and
  // returns whether it has.
  bool gives_up(Rank peer);
  void issue_or_keep(const Piece& piece);
  void fail_piece(const Piece& piece, ssize_t result);
  int retry_pending();
  int read_queue(FabricNic& nic);
  void take_completion(FabricNic& nic, const fi_cq_data_entry& entry);
  void take_error(FabricNic& nic);
  void count(std::uint64_t immediate);
  void release(FabricContext& context);

  RegionTable regions_;
  ArrivalCounters arrivals_;
  CompletionWindow window_;
  std::string provider_;
  std::vector<GpuRegistration> gpu_ladder_;
  StripeLimits stripe_limits_;
  std::vector<std::unique_ptr<FabricNic>> nics_;
  std::vector<std::size_t> num_peer_nics_;           // by rank
  std::vector<ConnectionWatch> connections_;         // by rank
  std::vector<std::vector<FidOwner<fid_mr>>> keys_;  // by region and NIC
  std::uint64_t last_key_ = 0;
  std::size_t next_nic_ = 0;
  std::vector<FabricContext> contexts_;
  std::vector<FabricContext*> free_contexts_;
  std::vector<Piece> later_;   // of the put at hand: all but its first
  std::deque<Piece> pending_;  // of accepted puts, that a NIC had no room for
};

}  // namespace moelink
