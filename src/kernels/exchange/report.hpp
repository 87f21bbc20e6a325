// What block 0 tells the host after an exchange, so that it can size tensors and name errors.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/domain.hpp"
#include "moelink/host_device.hpp"
#include "protocol/control_layout.hpp"
#include "protocol/limits.hpp"

namespace moelink::kernels {

// Head of a report in pinned memory; the blocks [R] and the count rows [R, R + E] follow it.
struct Report {
  std::uint64_t serial;  // of the call: written last, with release order
  device::Verdict verdict;
  std::uint32_t reserved;

  MOELINK_HD ExchangeBlock* blocks() { return reinterpret_cast<ExchangeBlock*>(this + 1); }
  const ExchangeBlock* blocks() const { return reinterpret_cast<const ExchangeBlock*>(this + 1); }
  MOELINK_HD std::int32_t* counts(int num_ranks) {
    return reinterpret_cast<std::int32_t*>(blocks() + num_ranks);
  }
  const std::int32_t* counts(int num_ranks) const {
    return reinterpret_cast<const std::int32_t*>(blocks() + num_ranks);
  }
  MOELINK_HD static constexpr std::size_t bytes(int num_ranks, int max_num_experts) {
    const auto ranks = static_cast<std::size_t>(num_ranks);
    const std::size_t counts = ranks * (ranks + static_cast<std::size_t>(max_num_experts));
    return align_up(sizeof(Report) + ranks * sizeof(ExchangeBlock) + counts * sizeof(std::int32_t),
                    kPartAlignment);
  }
};
static_assert(sizeof(Report) == 16);

// Where a call wants its report; null: the host does not wait for this exchange.
struct ReportTarget {
  Report* report = nullptr;
  std::uint64_t serial = 0;
};

}  // namespace moelink::kernels
