// Texts of faults.
#include "backend/cuda/fault_check.hpp"

#include <cuda_runtime_api.h>

#include <atomic>

#include "base/check.hpp"
#include "protocol/signal.hpp"

namespace moelink {

FaultCheck::FaultCheck(std::shared_ptr<const std::byte> mailbox,
                       const std::shared_ptr<const SymmetricMemory>& memory,
                       std::chrono::milliseconds timeout)
    : mailbox_(std::move(mailbox)), memory_(memory), rank_(memory->rank()), timeout_(timeout) {}

const device::Fault& FaultCheck::fault() const {
  return reinterpret_cast<const HostMailbox*>(mailbox_.get())->fault;
}

bool FaultCheck::is_raised() const {
  auto& raised = const_cast<std::uint32_t&>(fault().raised);
  return std::atomic_ref(raised).load(std::memory_order_acquire) != 0;
}

Rank FaultCheck::dead_rank(const SymmetricMemory& memory, Rank awaited) const {
  if (!memory.peer_alive(awaited)) return awaited;
  for (Rank peer(0); peer.value() < memory.num_ranks(); peer = peer.next()) {
    if (peer != rank_ && !memory.peer_alive(peer)) return peer;
  }
  return awaited;
}

std::string FaultCheck::reason_of(const SymmetricMemory& memory, Rank peer) const {
  FaultRecord record{};
  const std::byte* const place = memory.region(peer) + ControlLayout::fault_offset();
  const bool read = cudaMemcpyAsync(&record, place, sizeof(record), cudaMemcpyDeviceToHost,
                                    cudaStreamPerThread) == cudaSuccess &&
                    cudaStreamSynchronize(cudaStreamPerThread) == cudaSuccess;
  if (!read || record.raised == 0 || record.text_bytes > FaultRecord::kMaxText) return {};
  return std::string(record.text, record.text_bytes);
}

// "rank 2 has died", or that it gave up and why: a rank that leaves may do both.
std::string FaultCheck::text_of_loss(const device::Fault& fault) const {
  const bool gave_up = fault.cause == device::FaultCause::kPeerGaveUp;
  const char* const plain = gave_up ? "gave up" : "has died";
  const std::shared_ptr<const SymmetricMemory> memory = memory_.lock();
  if (!memory) return fmt::format("rank {} {}", fault.peer, plain);
  const Rank peer = gave_up ? Rank(fault.peer) : dead_rank(*memory, Rank(fault.peer));
  const std::string reason = reason_of(*memory, peer);
  if (reason.empty()) return fmt::format("rank {} {}", peer.value(), plain);
  return fmt::format("rank {} gave up: {}", peer.value(), reason);
}

// Low latency operations tell more, see kernels::Refusal.
std::string FaultCheck::text_of_refusal(const device::Fault& fault) const {
  const bool is_low_latency = fault.operation == Operation::kLowLatencyDispatch ||
                              fault.operation == Operation::kLowLatencyCombine;
  if (!is_low_latency) {
    return "the ranks' calls do not fit together: an argument differs between ranks, a selection "
           "is no expert, or num_worst_tokens is too small; the same calls without "
           "num_worst_tokens, or a new dispatch instead of a cached one, say which";
  }
  if (fault.expected > 0) {
    return fmt::format("topk_idx: selection {}, counted over all tokens, is {}, which is no expert",
                       fault.expected - 1, static_cast<std::int64_t>(fault.seen));
  }
  if (fault.seen > 0) {
    return "topk_idx selects an expert more often than num_max_tokens_per_rank times (ids repeat "
           "within tokens)";
  }
  return "the ranks' calls differ in fp8, numerics, num_experts or whether topk_weights are given, "
         "or topk_idx of another rank has ids that are no experts";
}

void FaultCheck::throw_if_raised(Epoch last) const {
  if (!is_raised() || fault().epoch > last) return;
  const device::Fault& raised = fault();
  if (raised.cause == device::FaultCause::kRefused) {
    fail(ErrorCode::kInvalidArgument, "{} (rank {}): {}", operation_name(raised.operation),
         rank_.value(), text_of_refusal(raised));
  }
  const std::string where = fmt::format("{} (rank {}), stage {}", operation_name(raised.operation),
                                        rank_.value(), stage_name(raised.stage));
  if (raised.cause != device::FaultCause::kTimeout) {
    fail(ErrorCode::kPeerLost, "{}: {}", where, text_of_loss(raised));
  }
  const SignalValue expected(raised.expected);
  const SignalValue seen(raised.seen);
  fail(ErrorCode::kTimeout,
       "{}: rank {} did not arrive within {} ms (expected operation {} step {}, seen operation {} "
       "step {})",
       where, raised.peer, timeout_.count(), expected.epoch().value(), expected.progress(),
       seen.epoch().value(), seen.progress());
}

}  // namespace moelink
