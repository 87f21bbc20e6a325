// Asks the CUDA runtime about the links between GPUs.
#include "backend/cuda/line_format.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>

#include "base/cuda/check.hpp"
#include "base/environment.hpp"

namespace moelink {
namespace {

bool same_device(const OpeningTicket& a, const OpeningTicket& b) {
  return std::memcmp(a.device_id, b.device_id, sizeof(a.device_id)) == 0;
}

// What this process calls the GPU of `ticket`, if it sees it.
std::optional<int> visible_device(const OpeningTicket& ticket, int num_devices) {
  for (int device = 0; device < num_devices; ++device) {
    cudaDeviceProp properties{};
    check_cuda(cudaGetDeviceProperties(&properties, device), "read a device's name");
    if (std::memcmp(properties.uuid.bytes, ticket.device_id, sizeof(ticket.device_id)) == 0) {
      return device;
    }
  }
  return std::nullopt;
}

bool keeps_lines_whole(const OpeningTicket& mine, const OpeningTicket& other) {
  if (same_device(mine, other)) return true;
  const std::optional<int> peer = visible_device(other, mine.num_devices);
  return peer && *peer != mine.device && has_native_atomics(mine.device, *peer);
}

}  // namespace

bool has_native_atomics(int device, int peer) {
  int supported = 0;
  check_cuda(
      cudaDeviceGetP2PAttribute(&supported, cudaDevP2PAttrNativeAtomicSupported, device, peer),
      "ask how devices are linked");
  return supported != 0;
}

LineFormat line_format_of(const SymmetricMemory& memory, const OpeningTicket& mine,
                          const std::vector<OpeningTicket>& tickets) {
  const std::string& wish = environment().line_format;
  if (wish == "whole") return LineFormat::kWhole;
  if (wish == "split" || std::strcmp(memory.kind(), "cuda_pinned") == 0) return LineFormat::kSplit;
  const bool all = std::ranges::all_of(
      tickets, [&](const OpeningTicket& other) { return keeps_lines_whole(mine, other); });
  return all ? LineFormat::kWhole : LineFormat::kSplit;
}

LineFormat agree_on_line_format(Bootstrap& bootstrap, LineFormat mine, const Deadline& deadline) {
  const std::string whole = "whole lines";
  const std::string blob = mine == LineFormat::kWhole ? whole : "split lines";
  const std::vector<std::string> blobs = bootstrap.all_gather(blob, "opening a buffer", deadline);
  const bool all = std::ranges::all_of(blobs, [&](const std::string& one) { return one == whole; });
  return all ? LineFormat::kWhole : LineFormat::kSplit;
}

}  // namespace moelink
