// Each mover of the CPU backend beside memcpy of the same bytes. `bytes_per_second` counts bytes
// read once plus bytes written, for the movers and for memcpy alike, so that rates compare.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "backend/cpu/simd/simd.hpp"

namespace moelink::simd {
namespace {

constexpr std::size_t kPoolBytes = std::size_t{48} << 20;  // more than most caches
constexpr std::size_t kMaxPools = 10;

struct Free {
  void operator()(std::uint8_t* memory) const { std::free(memory); }
};

// Memory of every pool, touched once: page faults must not be timed again and again.
std::uint8_t* pool_memory(std::size_t pool) {
  static const std::unique_ptr<std::uint8_t, Free> memory = [] {
    std::unique_ptr<std::uint8_t, Free> fresh(
        static_cast<std::uint8_t*>(std::aligned_alloc(4096, kMaxPools * kPoolBytes)));
    std::memset(fresh.get(), 0x3c, kMaxPools * kPoolBytes);  // a small number in every type
    return fresh;
  }();
  return memory.get() + pool * kPoolBytes;
}

// Rows of one size, visited in order, again and again.
class RowPool {
 public:
  RowPool(std::size_t pool, std::size_t row_bytes)
      : row_bytes_(row_bytes), num_rows_(kPoolBytes / row_bytes), memory_(pool_memory(pool)) {}

  std::uint8_t* row(std::size_t i) const { return memory_ + i % num_rows_ * row_bytes_; }

 private:
  std::size_t row_bytes_;
  std::size_t num_rows_;
  std::uint8_t* memory_;
};

void count_bytes(benchmark::State& state, std::size_t bytes_per_row) {
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes_per_row));
}

std::vector<RowPool> make_pools(std::size_t count, std::size_t row_bytes) {
  std::vector<RowPool> pools;
  for (std::size_t i = 0; i < count; ++i) pools.emplace_back(i + 1, row_bytes);
  return pools;
}

// Arguments: row bytes, number of destinations.
struct CopyShape {
  explicit CopyShape(const benchmark::State& state)
      : row_bytes(static_cast<std::size_t>(state.range(0))),
        source(0, row_bytes),
        pools(make_pools(static_cast<std::size_t>(state.range(1)), row_bytes)),
        destinations(pools.size()) {}

  void visit(std::size_t i) {
    for (std::size_t k = 0; k < pools.size(); ++k) destinations[k] = pools[k].row(i);
  }
  std::size_t moved_bytes() const { return row_bytes * (1 + pools.size()); }

  std::size_t row_bytes;
  RowPool source;
  std::vector<RowPool> pools;
  std::vector<void*> destinations;
};

void memcpy_to_each(benchmark::State& state) {
  CopyShape shape(state);
  std::size_t i = 0;
  for (auto _ : state) {
    shape.visit(i);
    for (void* to : shape.destinations) std::memcpy(to, shape.source.row(i), shape.row_bytes);
    ++i;
  }
  count_bytes(state, shape.moved_bytes());
}

template <StorePolicy kPolicy>
void copy_row_to_all(benchmark::State& state) {
  CopyShape shape(state);
  std::size_t i = 0;
  for (auto _ : state) {
    shape.visit(i);
    copy_row(shape.source.row(i), shape.destinations, shape.row_bytes, kPolicy);
    ++i;
  }
  streaming_fence();
  count_bytes(state, shape.moved_bytes());
}

void copy_shapes(benchmark::internal::Benchmark* bench) {
  for (const int row_bytes : {1024, 4096, 14336, 32768}) {
    for (const int num_destinations : {1, 2, 4, 8}) bench->Args({row_bytes, num_destinations});
  }
}

BENCHMARK(memcpy_to_each)->Apply(copy_shapes);
BENCHMARK(copy_row_to_all<StorePolicy::kStreaming>)->Apply(copy_shapes);
BENCHMARK(copy_row_to_all<StorePolicy::kCached>)->Apply(copy_shapes);

// Arguments: row bytes, number of addends.
struct ReduceShape {
  explicit ReduceShape(const benchmark::State& state)
      : row_bytes(static_cast<std::size_t>(state.range(0))),
        pools(make_pools(static_cast<std::size_t>(state.range(1)), row_bytes)),
        out(0, row_bytes) {}

  // As a token's rows lie at the ranks: in order at each, with gaps where others were sent.
  const void* addend(std::size_t k, std::size_t i) { return pools[k].row(i + (i + k) / 8); }
  std::size_t moved_bytes() const { return row_bytes * (1 + pools.size()); }

  std::size_t row_bytes;
  std::vector<RowPool> pools;
  RowPool out;
};

// The same bytes read and about the same written: half of each row is copied.
void memcpy_of_addends(benchmark::State& state) {
  ReduceShape shape(state);
  const std::size_t num_addends = shape.pools.size();
  const std::size_t piece = shape.row_bytes * (num_addends + 1) / (2 * num_addends) / 64 * 64;
  std::size_t i = 0;
  for (auto _ : state) {
    for (std::size_t k = 0; k < num_addends; ++k) {
      std::memcpy(shape.out.row(i * num_addends + k), shape.addend(k, i), piece);
    }
    ++i;
  }
  count_bytes(state, 2 * piece * num_addends);
}

template <StorePolicy kPolicy, std::uint32_t kCloses>
void reduce_bfloat16(benchmark::State& state) {
  ReduceShape shape(state);
  std::vector<Addend> addends(shape.pools.size(), Addend{nullptr, kCloses});
  std::size_t i = 0;
  for (auto _ : state) {
    for (std::size_t k = 0; k < addends.size(); ++k) addends[k].row = shape.addend(k, i);
    reduce_row({DType::kBFloat16, shape.row_bytes / 2, addends, nullptr, nullptr, shape.out.row(i),
                kPolicy});
    ++i;
  }
  streaming_fence();
  count_bytes(state, shape.moved_bytes());
}

void reduce_shapes(benchmark::internal::Benchmark* bench) {
  for (const int row_bytes : {4096, 14336}) {
    for (const int num_addends : {1, 2, 4, 9}) bench->Args({row_bytes, num_addends});
  }
}

BENCHMARK(memcpy_of_addends)->Apply(reduce_shapes);
BENCHMARK(reduce_bfloat16<StorePolicy::kStreaming, 0>)->Apply(reduce_shapes);
BENCHMARK(reduce_bfloat16<StorePolicy::kCached, 0>)->Apply(reduce_shapes);
BENCHMARK(reduce_bfloat16<StorePolicy::kStreaming, 1>)->Apply(reduce_shapes);

// Argument: number of channels.
struct CodecShape {
  explicit CodecShape(const benchmark::State& state)
      : num_channels(static_cast<std::size_t>(state.range(0))),
        wide(0, num_channels * 2),
        narrow(1, num_channels),
        scales(num_channels / kScaleBlock, 0.5f) {}

  std::size_t moved_bytes() const { return num_channels * 3; }

  std::size_t num_channels;
  RowPool wide;
  RowPool narrow;
  std::vector<float> scales;
};

void memcpy_of_quantized(benchmark::State& state) {
  CodecShape shape(state);
  std::size_t i = 0;
  for (auto _ : state) {
    std::memcpy(shape.narrow.row(i), shape.wide.row(i), shape.num_channels);
    std::memcpy(shape.narrow.row(i) + shape.num_channels / 2,
                shape.wide.row(i) + shape.num_channels, shape.num_channels / 2);
    ++i;
  }
  count_bytes(state, shape.moved_bytes());
}

template <ScaleFormat kFormat>
void quantize_bfloat16(benchmark::State& state) {
  CodecShape shape(state);
  std::size_t i = 0;
  for (auto _ : state) {
    quantize_row(shape.wide.row(i), DType::kBFloat16, shape.num_channels, kFormat,
                 shape.narrow.row(i), shape.scales.data());
    ++i;
  }
  count_bytes(state, shape.moved_bytes());
}

void dequantize_bfloat16(benchmark::State& state) {
  CodecShape shape(state);
  std::size_t i = 0;
  for (auto _ : state) {
    dequantize_row(shape.narrow.row(i), shape.scales.data(), shape.num_channels, shape.wide.row(i),
                   DType::kBFloat16);
    ++i;
  }
  count_bytes(state, shape.moved_bytes());
}

BENCHMARK(memcpy_of_quantized)->Arg(2048)->Arg(7168);
BENCHMARK(quantize_bfloat16<ScaleFormat::kFloat32>)->Arg(2048)->Arg(7168);
BENCHMARK(quantize_bfloat16<ScaleFormat::kPackedUE8M0>)->Arg(2048)->Arg(7168);
BENCHMARK(dequantize_bfloat16)->Arg(2048)->Arg(7168);

// Arguments: number of channels, source type, destination type.
void convert_between(benchmark::State& state) {
  const auto num_channels = static_cast<std::size_t>(state.range(0));
  const auto from = static_cast<DType>(state.range(1));
  const auto to = static_cast<DType>(state.range(2));
  RowPool source(0, num_channels * dtype_size(from));
  RowPool destination(1, num_channels * dtype_size(to));
  std::size_t i = 0;
  for (auto _ : state) {
    convert_row(source.row(i), from, destination.row(i), to, num_channels);
    ++i;
  }
  count_bytes(state, num_channels * (dtype_size(from) + dtype_size(to)));
  state.SetLabel(std::string(dtype_name(from)) + " to " + dtype_name(to));
}

void convert_types(benchmark::internal::Benchmark* bench) {
  for (const DType narrow : {DType::kBFloat16, DType::kFloat16}) {
    bench->Args({7168, static_cast<int>(DType::kFloat32), static_cast<int>(narrow)});
    bench->Args({7168, static_cast<int>(narrow), static_cast<int>(DType::kFloat32)});
  }
  bench->Args({7168, static_cast<int>(DType::kFloat32), static_cast<int>(DType::kFloat32)});
}

BENCHMARK(convert_between)->Apply(convert_types);

}  // namespace
}  // namespace moelink::simd
