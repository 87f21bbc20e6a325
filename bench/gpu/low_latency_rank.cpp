// Carries the low latency operations out, alone and in graphs, and checks what they give.
#include "low_latency_rank.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/cuda/check.hpp"

namespace moelink::bench {
namespace {

constexpr std::int64_t kRoutingBytes = 256;  // of a row, generously

template <class T>
std::shared_ptr<std::byte> uploaded(const std::vector<T>& values) {
  std::shared_ptr<std::byte> memory = make_device_memory(values.size() * sizeof(T) + 16);
  check_cuda(
      cudaMemcpy(memory.get(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice),
      "upload");
  return memory;
}

template <class T>
std::vector<T> downloaded(const void* from, std::int64_t count) {
  std::vector<T> values(static_cast<std::size_t>(count));
  check_cuda(cudaMemcpy(values.data(), from, values.size() * sizeof(T), cudaMemcpyDeviceToHost),
             "download");
  return values;
}

// Area, and receive tensors: of `verify`, of a graph while it is made, and of its last operation.
std::size_t symmetric_bytes(const LowLatencyCase& one, int num_ranks) {
  const std::int64_t groups = one.is_per_expert() ? one.num_experts : num_ranks;
  const std::int64_t rows = groups * one.tokens;
  const std::size_t area = Buffer::low_latency_size_hint(static_cast<int>(one.tokens), one.hidden,
                                                         num_ranks, one.num_topk);
  return area + static_cast<std::size_t>(5 * rows * (2 * one.hidden + kRoutingBytes)) +
         (std::size_t{256} << 20);
}

int device_of_rank(int rank) {
  int count = 0;
  check_cuda(cudaGetDeviceCount(&count), "count the GPUs");
  return rank % count;
}

}  // namespace

LowLatencyBenchRank::LowLatencyBenchRank(Group group, const LowLatencyCase& one)
    : case_(one), group_(std::move(group)) {
  const int rank = group_.rank().value();
  const int device = device_of_rank(rank);
  check_cuda(cudaSetDevice(device), "select a GPU");
  stream_ = CudaStream::make();
  origins_ = received_rows(case_, rank, group_.num_ranks());
  make_inputs();
  BufferConfig config;
  config.device = Device{DeviceKind::kCuda, device};
  config.max_symmetric_bytes = symmetric_bytes(case_, group_.num_ranks());
  config.num_workers = case_.sms;
  config.timeout = std::chrono::seconds(20);
  group_.barrier();
  buffer_ = std::make_unique<Buffer>(group_, config);
}

void LowLatencyBenchRank::make_inputs() {
  for (int rank = 0; rank < group_.num_ranks(); ++rank) {
    plain_.push_back(rows_of_rank(case_, rank));
    if (!case_.is_fp8) continue;
    quantized_.push_back(quantize_fp8(TensorView::contiguous(plain_.back().data(), DType::kBFloat16,
                                                             {case_.tokens, case_.hidden}),
                                      ScaleFormat::kFloat32));
  }
  x_ = uploaded(plain_[group_.rank().index()]);
  const std::vector<std::int64_t> experts = experts_of_rank(case_, group_.rank().value());
  topk_idx_ = uploaded(experts);
  topk_weights_ = uploaded(std::vector<float>(experts.size(), kWeight));
}

TensorView LowLatencyBenchRank::received_shape(void* data) const {
  const std::int64_t num_ranks = group_.num_ranks();
  const std::int64_t rows = case_.is_per_expert() ? num_ranks * case_.tokens : case_.tokens;
  return TensorView::contiguous(data, DType::kBFloat16,
                                {static_cast<std::int64_t>(origins_.size()), rows, case_.hidden});
}

// What the experts make of the rows in use; the others stay 0.
void LowLatencyBenchRank::make_returned_rows() {
  const TensorView shape = received_shape(nullptr);
  returned_ = make_device_memory(shape.num_bytes());
  const std::int64_t num_local = case_.num_experts / group_.num_ranks();
  const std::int64_t begin = group_.rank().value() * num_local;
  std::vector<std::vector<std::int64_t>> experts;
  for (int rank = 0; rank < group_.num_ranks(); ++rank) {
    experts.push_back(experts_of_rank(case_, rank));
  }
  const auto hidden = static_cast<std::size_t>(case_.hidden);
  for (std::size_t group = 0; group < origins_.size(); ++group) {
    std::vector<std::uint16_t> rows(origins_[group].size() * hidden);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const RowOrigin& origin = origins_[group][i / hidden];
      const auto source = static_cast<std::size_t>(origin.source);
      const auto token = static_cast<std::size_t>(origin.token);
      const std::int64_t* const list =
          &experts[source][token * static_cast<std::size_t>(case_.num_topk)];
      const float factor = case_.is_per_expert()
                               ? factor_of_expert(begin + static_cast<std::int64_t>(group))
                               : factor_of_token(case_, list, begin, begin + num_local);
      rows[i] = bfloat16_of(factor * float_of(plain_[source][token * hidden + i % hidden]));
    }
    std::byte* const to = returned_.get() + group * static_cast<std::size_t>(shape.strides[0]) * 2;
    check_cuda(cudaMemcpy(to, rows.data(), rows.size() * 2, cudaMemcpyHostToDevice), "upload");
  }
}

LowLatencyDispatchResult LowLatencyBenchRank::dispatch() {
  LowLatencyDispatchConfig config;
  config.x = TensorView::contiguous(x_.get(), DType::kBFloat16, {case_.tokens, case_.hidden});
  config.topk_idx =
      TensorView::contiguous(topk_idx_.get(), DType::kInt64, {case_.tokens, case_.num_topk});
  config.topk_weights =
      TensorView::contiguous(topk_weights_.get(), DType::kFloat32, {case_.tokens, case_.num_topk});
  config.num_max_tokens_per_rank = static_cast<int>(case_.tokens);
  config.num_experts = case_.num_experts;
  if (case_.is_fp8) config.fp8 = ScaleFormat::kFloat32;
  config.layout = case_.layout;
  config.stream.cuda_stream = stream_.get();
  return buffer_->low_latency_dispatch(config);
}

Tensor LowLatencyBenchRank::combine(const LowLatencyDispatchResult& received) {
  LowLatencyCombineConfig config;
  config.x = received_shape(returned_.get());
  config.topk_idx =
      TensorView::contiguous(topk_idx_.get(), DType::kInt64, {case_.tokens, case_.num_topk});
  config.topk_weights =
      TensorView::contiguous(topk_weights_.get(), DType::kFloat32, {case_.tokens, case_.num_topk});
  config.handle = received.handle;
  config.numerics = case_.numerics;
  config.stream.cuda_stream = stream_.get();
  return buffer_->low_latency_combine(config).combined_x;
}

bool LowLatencyBenchRank::verify() {
  received_ = dispatch();
  check_cuda(cudaStreamSynchronize(stream_.get()), "wait for a dispatch");
  const bool rows_right = rows_are_right(received_);
  make_returned_rows();
  group_.barrier();  // no rank waits in an allocation while another's kernel waits for it
  const Tensor combined = combine(received_);
  check_cuda(cudaStreamSynchronize(stream_.get()), "wait for a combine");
  return sums_are_right(combined) && rows_right;
}

bool LowLatencyBenchRank::rows_are_right(const LowLatencyDispatchResult& received) const {
  const auto num_groups = static_cast<std::int64_t>(origins_.size());
  const std::vector<std::int32_t> counts =
      downloaded<std::int32_t>(received.recv_count.view.data, num_groups);
  for (std::size_t group = 0; group < origins_.size(); ++group) {
    if (counts[group] != static_cast<std::int32_t>(origins_[group].size())) return false;
    if (!group_is_right(received, group)) return false;
  }
  return true;
}

bool LowLatencyBenchRank::group_is_right(const LowLatencyDispatchResult& received,
                                         std::size_t group) const {
  const std::vector<RowOrigin>& origins = origins_[group];
  const TensorView& rows = received.recv_x.view;
  const std::size_t row_bytes = static_cast<std::size_t>(case_.hidden) * dtype_size(rows.dtype);
  const auto first = static_cast<std::int64_t>(group) * rows.shape[1];
  const auto seen =
      downloaded<std::byte>(rows.as<std::byte>() + static_cast<std::size_t>(first) * row_bytes,
                            static_cast<std::int64_t>(origins.size() * row_bytes));
  const auto tokens =
      downloaded<std::int32_t>(received.handle->src_info.view.as<std::int32_t>() + first,
                               static_cast<std::int64_t>(origins.size()));
  std::vector<float> scales;
  TensorView places;
  if (received.recv_scales) {
    places = received.recv_scales->view;
    scales =
        downloaded<float>(places.as<float>() + static_cast<std::int64_t>(group) * places.strides[0],
                          places.shape[1] * places.shape[2]);
  }
  for (std::size_t i = 0; i < origins.size(); ++i) {
    const auto [source, token] = origins[i];
    const auto from = static_cast<std::size_t>(source);
    const auto at = static_cast<std::size_t>(token);
    const std::byte* const expected = case_.is_fp8
                                          ? quantized_[from].values.view.as<std::byte>()
                                          : reinterpret_cast<const std::byte*>(plain_[from].data());
    if (tokens[i] != token) return false;
    if (std::memcmp(&seen[i * row_bytes], expected + at * row_bytes, row_bytes) != 0) return false;
    for (std::int64_t s = 0; s < places.shape[2]; ++s) {
      const auto place = static_cast<std::size_t>(static_cast<std::int64_t>(i) * places.strides[1] +
                                                  s * places.strides[2]);
      const float* const wanted = quantized_[from].scales.view.as<float>();
      if (scales[place] != wanted[token * places.shape[2] + s]) return false;
    }
  }
  return true;
}

bool LowLatencyBenchRank::sums_are_right(const Tensor& combined) const {
  const auto seen = downloaded<std::uint16_t>(combined.view.data, case_.tokens * case_.hidden);
  const std::vector<std::int64_t> experts = experts_of_rank(case_, group_.rank().value());
  const std::vector<std::uint16_t>& mine = plain_[group_.rank().index()];
  const auto hidden = static_cast<std::size_t>(case_.hidden);
  for (std::size_t token = 0; token < static_cast<std::size_t>(case_.tokens); ++token) {
    const float factor = factor_of_token(
        case_, &experts[token * static_cast<std::size_t>(case_.num_topk)], 0, case_.num_experts);
    for (std::size_t i = token * hidden; i < (token + 1) * hidden; ++i) {
      if (float_of(seen[i]) != factor * float_of(mine[i])) return false;
    }
  }
  return true;
}

void LowLatencyBenchRank::capture(Timed what) {
  for (int i = 0; i < kOperationsPerGraph; ++i) {
    if (what != Timed::kCombine) last_dispatch_ = dispatch();
    if (what == Timed::kCombine) last_combine_ = combine(received_);
    if (what == Timed::kPair) last_combine_ = combine(last_dispatch_);
  }
}

LowLatencyBenchRank::Times LowLatencyBenchRank::time_in_graph(Timed what, int num_launches) {
  check_cuda(cudaStreamSynchronize(stream_.get()), "wait");
  group_.barrier();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  check_cuda(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal), "capture");
  capture(what);
  check_cuda(cudaStreamEndCapture(stream_.get(), &graph), "capture");
  check_cuda(cudaGraphInstantiate(&executable, graph, 0), "make a graph");
  check_cuda(cudaGraphUpload(executable, stream_.get()), "upload a graph");
  check_cuda(cudaStreamSynchronize(stream_.get()), "wait");
  Times times;
  times.microseconds = launch(executable, num_launches);
  times.verified = (what == Timed::kCombine || rows_are_right(last_dispatch_)) &&
                   (what == Timed::kDispatch || sums_are_right(last_combine_));
  group_.barrier();
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  last_dispatch_ = {};
  last_combine_ = {};
  return times;
}

std::vector<double> LowLatencyBenchRank::launch(cudaGraphExec_t graph, int num_launches) {
  std::vector<cudaEvent_t> events(static_cast<std::size_t>(num_launches) + 1);
  for (cudaEvent_t& event : events) check_cuda(cudaEventCreate(&event), "make an event");
  group_.barrier();
  for (int i = 0; i < kWarmups; ++i) {
    check_cuda(cudaGraphLaunch(graph, stream_.get()), "launch a graph");
  }
  for (int i = 0; i < num_launches; ++i) {
    check_cuda(cudaEventRecord(events[static_cast<std::size_t>(i)], stream_.get()), "record");
    check_cuda(cudaGraphLaunch(graph, stream_.get()), "launch a graph");
  }
  check_cuda(cudaEventRecord(events.back(), stream_.get()), "record");
  check_cuda(cudaStreamSynchronize(stream_.get()), "wait");
  std::vector<double> times;
  for (std::size_t i = 0; i + 1 < events.size(); ++i) {
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, events[i], events[i + 1]), "read a time");
    times.push_back(1000.0 * milliseconds / kOperationsPerGraph);
  }
  for (cudaEvent_t event : events) cudaEventDestroy(event);
  return times;
}

}  // namespace moelink::bench
