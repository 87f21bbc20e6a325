// Low latency dispatch on the CPU: one message per destination rank, expanded on arrival.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "backend/cpu/low_latency/low_latency_context.hpp"
#include "backend/cpu/low_latency/token_routes.hpp"
#include "backend/cpu/route.hpp"
#include "protocol/expert_map.hpp"

namespace moelink {

// The caller runs send() and then receive(), each once, on the stream.
class LowLatencyDispatch {
 public:
  LowLatencyDispatch(CpuContext& context, LowLatencyContext& low_latency,
                     const LowLatencyDispatchConfig& config);

  // Tensors and handle; the contents are valid after receive().
  LowLatencyDispatchResult result() const { return result_; }
  void send();
  void receive();

 private:
  // What arrived from one rank.
  struct Message {
    const std::byte* entries = nullptr;
    const std::byte* rows = nullptr;  // of the source's outbox
    std::uint32_t num_tokens = 0;

    const std::int32_t* entry(std::size_t i, std::size_t stride) const {
      return reinterpret_cast<const std::int32_t*>(entries + i * stride);
    }
    const std::byte* row(const std::int32_t* entry, std::size_t stride) const {
      return rows + static_cast<std::size_t>(entry[0]) * stride;
    }
  };

  void make_routing_tensors();
  void make_row_tensors();
  LowLatencyHeader header() const;
  void check_repeats() const;
  void send_token(std::int64_t token, std::vector<std::uint32_t>& num_sent);
  void send_far(Rank peer, LowLatencyHeader header);
  std::size_t wire_row_bytes() const;
  void write_row(std::int64_t token) const;
  void write_entry(std::int64_t token, Rank destination, std::int32_t* entry) const;
  void read_messages();
  void check_outboxes() const;
  void expand_per_expert();
  void lay_out_experts(std::vector<std::int64_t>& next_row);
  void expand_per_rank();
  void clear_unused(std::int64_t source, std::int64_t num_used);
  void store_row(const std::byte* row, std::int64_t group, std::int64_t index);

  std::atomic_ref<std::uint64_t> outbox_epoch(Rank owner) const;
  std::size_t num_scales() const;  // elements of the scale tensor per row
  OutputExtents extents() const;
  std::int64_t rows_per_group() const { return extents().rows; }

  CpuContext& context_;
  LowLatencyContext& low_latency_;
  LowLatencyDispatchConfig config_;
  TopkList topk_;
  ExpertMap map_;
  TokenRoutes routes_;  // from send() on
  LowLatencyArea area_;
  OutstandingSlot slot_;
  std::shared_ptr<LowLatencyRouting> routing_;
  LowLatencyDispatchResult result_;
  Epoch epoch_;
  std::vector<bool> arrived_;
  std::vector<Message> messages_;
};

}  // namespace moelink
