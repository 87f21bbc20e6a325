// Fault records: how a rank that gives up tells its peers why.
#include "backend/cpu/control_area.hpp"

#include <algorithm>
#include <cstring>

namespace moelink {

void ControlArea::raise_fault(const std::string& reason, Epoch first_missed) const {
  FaultRecord& record = record_of(rank());
  const std::atomic_ref raised(record.raised);
  if (raised.load(std::memory_order_acquire) != 0) return;
  const std::size_t size = std::min(reason.size(), FaultRecord::kMaxText);
  std::memcpy(record.text, reason.data(), size);
  record.text_bytes = static_cast<std::uint32_t>(size);
  record.first_missed = first_missed;
  raised.store(1, std::memory_order_release);  // publishes the record to fault_of() of the peers
}

std::string ControlArea::fault_of(Rank rank, Epoch epoch) const {
  FaultRecord& record = record_of(rank);
  if (std::atomic_ref(record.raised).load(std::memory_order_acquire) == 0) return {};
  if (epoch < record.first_missed) return {};
  const std::size_t size = std::min<std::size_t>(record.text_bytes, FaultRecord::kMaxText);
  return std::string(record.text, size);
}

}  // namespace moelink
