// One rank of a buffer under test: makes its tensors, calls the buffer, compares with the
// reference.
#pragma once

#include <chrono>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "bootstrap/bootstrap.hpp"
#include "conformance/buffer_cases.hpp"
#include "conformance/memory_probes.hpp"
#include "conformance/test_timeout.hpp"
#include "moelink/moelink.hpp"

namespace moelink::test {

// How a backend joins the suite: how its ranks run and where its tensors live.
struct BufferKind {
  const char* name;
  // Runs a function as every rank of a group; returns an error text per rank.
  std::vector<std::string> (*run)(int num_ranks, const std::function<void(Bootstrap&)>& body);
  // Memory for one tensor of the user, and copies between it (or symmetric memory) and the heap.
  std::shared_ptr<void> (*allocate)(std::size_t bytes);
  void (*upload)(void* to, const void* from, std::size_t bytes);
  void (*download)(void* to, const void* from, std::size_t bytes);
  Device device{};
  int num_nodes = 1;  // that the topologies of one node are spread over
  NetworkPath network_path = NetworkPath::kAuto;
  bool through_host = false;  // tensors of a GPU that the CPU backend carries

  friend std::ostream& operator<<(std::ostream& out, const BufferKind& kind) {
    return out << kind.name;
  }
};

inline Group group_over(Bootstrap& bootstrap, const GroupOptions& options = {}) {
  const AllGather all_gather = [&bootstrap](const std::string& blob) {
    return bootstrap.all_gather(blob, "the test's group", soon());
  };
  return Group::from_callback(bootstrap.rank(), bootstrap.num_ranks(), all_gather, options);
}

// The tensors of a dispatch and the config that views them.
struct DispatchArguments {
  Tensor x;
  Tensor topk_idx;
  std::optional<Tensor> scales;
  std::optional<Tensor> topk_weights;
  std::optional<Tensor> mask;
  DispatchConfig config;
};

struct CombineOptions {
  enum class Place { kHeap, kSymmetric };

  DType dtype = DType::kBFloat16;
  std::int64_t num_channels = 64;
  std::uint64_t seed = 99;
  Place place = Place::kHeap;
  int num_biases = 0;
  WeightKind weights = WeightKind::kAbsent;
  bool into_out = false;
  StreamOptions stream;
};

// The tensors of a combine, and its result once it has been called.
struct CombineArguments {
  Tensor x;
  std::optional<Tensor> weights;
  std::vector<Tensor> biases;
  Bytes bias_bytes[2];
  std::optional<Tensor> out;
  CombineConfig config;
};

class BufferRank {
 public:
  BufferRank(const BufferKind& kind, Group group, const BufferConfig& config)
      : kind_(kind), buffer(std::move(group), on_device(kind, config)) {}

  int rank() const { return buffer.group().rank().value(); }
  int num_ranks() const { return buffer.group().num_ranks(); }
  const BufferKind& kind() const { return kind_; }

  DispatchArguments arguments(const BufferCase& one, const Problem& problem) const;
  CombineArguments arguments(const Problem& problem, const DispatchResult& received,
                             const CombineOptions& options);

  // Dispatches, compares everything that comes back, and returns it.
  DispatchResult dispatch(const BufferCase& one, const StreamOptions& stream = {});
  // Combines made-up rows for `received` and compares the result.
  void combine(const BufferCase& one, const DispatchResult& received,
               const CombineOptions& options);
  // Both, for reducible types; dispatch alone for others.
  void round_trip(const BufferCase& one);

  void check(const BufferCase& one, const Problem& problem, const DispatchResult& result) const;
  void check(const Problem& problem, const CombineOptions& options,
             const CombineArguments& arguments, const CombineResult& result) const;
  // A tensor of the backend with the given contents.
  Tensor put(const void* data, DType dtype, std::initializer_list<std::int64_t> shape) const;
  // Contents of a contiguous tensor, which must have the given type and shape.
  Bytes bytes_of(const char* name, const Tensor& tensor, DType dtype,
                 std::initializer_list<std::int64_t> shape) const;

 private:
  static BufferConfig on_device(const BufferKind& kind, BufferConfig config) {
    config.device = kind.device;
    if (kind.device.kind == DeviceKind::kCpu) return config;
    if (config.max_symmetric_bytes == 0) config.max_symmetric_bytes = std::size_t{128} << 20;
    if (config.timeout.count() == 0) config.timeout = test_timeout(std::chrono::seconds(10));
    return config;
  }
  void check_handle(const BufferCase& one, const Problem& problem, const ReceivedRows& expected,
                    const Routing& handle) const;
  void check_sent(const Problem& problem, const Routing& handle) const;
  Tensor arrange_scales(const BufferCase& one, const Sent& sent) const;
  void add_biases(const CombineOptions& options, std::int64_t num_tokens,
                  CombineArguments& made) const;
  void check_topk(const BufferCase& one, const Problem& problem, const ReceivedRows& expected,
                  const DispatchResult& result) const;
  void expect_bytes(const char* name, const Bytes& seen, const Bytes& expected) const;
  template <class T>
  std::vector<T> values_of(const char* name, const Tensor& tensor, DType dtype,
                           std::initializer_list<std::int64_t> shape) const {
    const Bytes bytes = bytes_of(name, tensor, dtype, shape);
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

  BufferKind kind_;

 public:
  Buffer buffer;
};

}  // namespace moelink::test

#include "conformance/buffer_rank-inl.hpp"
