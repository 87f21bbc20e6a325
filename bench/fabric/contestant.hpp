// What is measured: one side of a pair of processes that put to each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "pair.hpp"

namespace moelink::bench {

inline constexpr std::size_t kHeapBytes = std::size_t{64} << 20;
inline constexpr std::size_t kQueueDepth = 256;

class Contestant {
 public:
  virtual ~Contestant() = default;
  // A put with an immediate to the same offset at the other side; waits for room.
  virtual void put(std::size_t offset, std::size_t bytes) = 0;
  // Until so many puts of the other side have arrived, since the beginning.
  virtual void await(std::uint64_t num_arrivals) = 0;
  // Until all own puts are complete.
  virtual void flush() = 0;
};

// Collective over the pair. `provider` is a base name, such as "tcp".
std::unique_ptr<Contestant> open_raw_fabric(Pair& pair, const std::string& provider);
std::unique_ptr<Contestant> open_transport_contestant(Pair& pair, const std::string& provider);
std::unique_ptr<Contestant> open_proxy_contestant(Pair& pair, const std::string& provider);

}  // namespace moelink::bench
