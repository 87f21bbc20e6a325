// Makes inputs whose every byte is known, and checks outputs against them.
#include "cuda_bench_rank.hpp"

#include <algorithm>
#include <cstring>
#include <random>
#include <string>

#include "base/check.hpp"

namespace moelink::bench {
namespace {

constexpr std::size_t kSymmetricBytes = std::size_t{2} << 30;

// Eight bytes of a row: any for FP8, small whole numbers for BF16, whose sums are exact.
std::uint64_t word_of(DType dtype, int rank, std::int64_t token, std::uint64_t index) {
  std::uint64_t hash =
      (static_cast<std::uint64_t>(rank) << 48) ^ (static_cast<std::uint64_t>(token) << 24) ^ index;
  hash = (hash ^ (hash >> 31)) * 0x9e3779b97f4a7c15U;
  hash ^= hash >> 29;
  if (dtype == DType::kFloat8E4M3) return hash;
  constexpr std::uint64_t kWhole[4] = {0x3f80, 0x4000, 0x4040, 0xbf80};  // 1, 2, 3, -1
  std::uint64_t word = 0;
  for (int i = 0; i < 4; ++i) word |= kWhole[(hash >> (2 * i)) & 3] << (16 * i);
  return word;
}

void fill_row(std::byte* row, const Case& one, int rank, std::int64_t token) {
  for (std::size_t i = 0; i < one.row_bytes() / 8; ++i) {
    const std::uint64_t word = word_of(one.dtype, rank, token, i);
    std::memcpy(row + i * 8, &word, 8);
  }
}

float bfloat16_at(const std::byte* row, std::size_t i) {
  std::uint16_t half;
  std::memcpy(&half, row + i * 2, 2);
  const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

void upload(const std::shared_ptr<std::byte>& to, const void* from, std::size_t bytes) {
  check_cuda(cudaMemcpy(to.get(), from, bytes, cudaMemcpyHostToDevice), "upload");
}

}  // namespace

const char* Case::operation_name() const {
  switch (kind) {
    case Kind::kDispatch:
      return "dispatch";
    case Kind::kCachedDispatch:
      return "cached_dispatch";
    case Kind::kCombine:
      return "combine";
    case Kind::kCombineForeign:
      return "combine_foreign";
  }
  return "";
}

BenchRank::BenchRank(Group group, const Case& one) : case_(one), group_(std::move(group)) {
  int count = 0;
  check_cuda(cudaGetDeviceCount(&count), "count the GPUs");
  device_ = group_.rank().value() % count;
  check_cuda(cudaSetDevice(device_), "select a GPU");
  stream_ = CudaStream::make();
  make_inputs();
  BufferConfig config;
  config.device = Device{DeviceKind::kCuda, device_};
  config.max_symmetric_bytes = kSymmetricBytes;
  config.num_workers = case_.sms;
  config.stage_clock = case_.clock;
  config.timeout = std::chrono::seconds(20);
  buffer_ = std::make_unique<Buffer>(group_, config);
}

TensorView BenchRank::view(const std::shared_ptr<std::byte>& memory, DType dtype,
                           std::initializer_list<std::int64_t> shape) const {
  return TensorView::contiguous(memory.get(), dtype, shape);
}

void BenchRank::make_inputs() {
  const auto tokens = static_cast<std::size_t>(case_.tokens);
  const auto num_topk = static_cast<std::size_t>(case_.num_topk);
  std::vector<std::byte> rows(tokens * case_.row_bytes());
  for (std::int64_t token = 0; token < case_.tokens; ++token) {
    fill_row(&rows[static_cast<std::size_t>(token) * case_.row_bytes()], case_,
             group_.rank().value(), token);
  }
  x_ = make_device_memory(rows.size());
  upload(x_, rows.data(), rows.size());
  std::mt19937 random(static_cast<unsigned>(group_.rank().value()) + 1);
  std::vector<std::int64_t> all(static_cast<std::size_t>(case_.num_experts));
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
  std::vector<std::int64_t> ids;
  for (std::size_t token = 0; token < tokens; ++token) {
    for (std::size_t k = 0; k < num_topk; ++k) {
      std::swap(all[k], all[k + random() % (all.size() - k)]);
    }
    ids.insert(ids.end(), all.begin(), all.begin() + static_cast<std::ptrdiff_t>(num_topk));
  }
  topk_idx_ = make_device_memory(ids.size() * sizeof(ids[0]));
  upload(topk_idx_, ids.data(), ids.size() * sizeof(ids[0]));
  const std::vector<float> weights(ids.size(), 0.5F);
  topk_weights_ = make_device_memory(weights.size() * sizeof(float));
  upload(topk_weights_, weights.data(), weights.size() * sizeof(float));
  const std::vector<float> scales(tokens * static_cast<std::size_t>(case_.hidden) / 128, 1.5F);
  scales_ = make_device_memory(scales.size() * sizeof(float) + 16);
  upload(scales_, scales.data(), scales.size() * sizeof(float));
}

DispatchConfig BenchRank::dispatch_config() const {
  DispatchConfig config;
  config.x = view(x_, case_.dtype, {case_.tokens, case_.hidden});
  config.topk_idx = view(topk_idx_, DType::kInt64, {case_.tokens, case_.num_topk});
  config.topk_weights = view(topk_weights_, DType::kFloat32, {case_.tokens, case_.num_topk});
  if (case_.dtype == DType::kFloat8E4M3) {
    config.scales = view(scales_, DType::kFloat32, {case_.tokens, case_.hidden / kScaleBlock});
  }
  config.num_experts = case_.num_experts;
  config.layout = case_.layout;
  config.expert_alignment = case_.layout == Layout::kExpertMajor ? 128 : 1;
  config.stream.cuda_stream = stream_.get();
  return config;
}

std::shared_ptr<void> BenchRank::run_once() {
  CombineConfig combine;
  combine.handle = received_.handle;
  combine.stream.cuda_stream = stream_.get();
  combine.x = received_.recv_x.view;
  switch (case_.kind) {
    case Case::Kind::kDispatch: {
      DispatchConfig config = dispatch_config();
      config.num_worst_tokens = received_.recv_x.view.shape[0];
      return std::make_shared<DispatchResult>(buffer_->dispatch(config));
    }
    case Case::Kind::kCachedDispatch: {
      const DispatchConfig whole = dispatch_config();
      CachedDispatchConfig config;
      config.x = whole.x;
      config.scales = whole.scales;
      config.topk_weights = whole.topk_weights;
      config.handle = received_.handle;
      config.stream = whole.stream;
      return std::make_shared<DispatchResult>(buffer_->dispatch(config));
    }
    case Case::Kind::kCombineForeign:
      combine.x.data = foreign_rows_.get();
      [[fallthrough]];
    case Case::Kind::kCombine:
      return std::make_shared<CombineResult>(buffer_->combine(combine));
  }
  return nullptr;
}

std::vector<std::byte> BenchRank::download(const Tensor& tensor) const {
  std::vector<std::byte> bytes(tensor.view.num_bytes());
  check_cuda(cudaStreamSynchronize(stream_.get()), "wait");
  check_cuda(cudaMemcpy(bytes.data(), tensor.view.data, bytes.size(), cudaMemcpyDeviceToHost),
             "download");
  return bytes;
}

bool BenchRank::rows_are_right(const DispatchResult& received) const {
  const std::vector<std::byte> rows = download(received.recv_x);
  const auto sources = download(received.handle->recv_src_token());
  const auto prefix = download(received.handle->rank_prefix_matrix());
  const bool compact = case_.layout == Layout::kCompact;
  std::vector<std::byte> places;
  if (!compact) places = download(received.handle->recv_expert_row());
  const auto* const source_tokens = reinterpret_cast<const std::int32_t*>(sources.data());
  const auto* const ends = reinterpret_cast<const std::int32_t*>(prefix.data());
  const auto* const expert_rows = reinterpret_cast<const std::int32_t*>(places.data());
  const int num_ranks = group_.num_ranks();
  std::vector<std::byte> expected(case_.row_bytes());
  int source = 0;
  for (std::int64_t n = 0; n < received.handle->num_recv_tokens(); ++n) {
    while (n >= ends[source * num_ranks + group_.rank().value()]) ++source;
    fill_row(expected.data(), case_, source, source_tokens[n]);
    for (int k = 0; k < (compact ? 1 : case_.num_topk); ++k) {
      const std::int64_t row = compact ? n : expert_rows[n * case_.num_topk + k];
      if (row < 0) continue;
      const std::byte* const seen = &rows[static_cast<std::size_t>(row) * case_.row_bytes()];
      if (std::memcmp(seen, expected.data(), expected.size()) != 0) return false;
    }
  }
  return true;
}

// Experts that return what they got: a token's sum is its row times the number of its ranks, or of
// its experts where each has a row.
bool BenchRank::sums_are_right(const CombineResult& combined) const {
  const std::vector<std::byte> sums = download(combined.combined_x);
  const std::vector<std::byte> sent = download(received_.handle->is_token_in_rank());
  const auto num_ranks = static_cast<std::size_t>(group_.num_ranks());
  std::vector<std::byte> row(case_.row_bytes());
  for (std::size_t token = 0; token < static_cast<std::size_t>(case_.tokens); ++token) {
    const auto of_ranks = static_cast<float>(std::count(
        sent.begin() + static_cast<std::ptrdiff_t>(token * num_ranks),
        sent.begin() + static_cast<std::ptrdiff_t>((token + 1) * num_ranks), std::byte{1}));
    const float count =
        case_.layout == Layout::kCompact ? of_ranks : static_cast<float>(case_.num_topk);
    fill_row(row.data(), case_, group_.rank().value(), static_cast<std::int64_t>(token));
    const std::byte* const seen = &sums[token * case_.row_bytes()];
    for (std::size_t i = 0; i < static_cast<std::size_t>(case_.hidden); ++i) {
      if (bfloat16_at(seen, i) != count * bfloat16_at(row.data(), i)) return false;
    }
  }
  return true;
}

bool BenchRank::verify() {
  received_ = buffer_->dispatch(dispatch_config());
  bool right = rows_are_right(received_);
  if (case_.kind == Case::Kind::kCachedDispatch) {
    CachedDispatchConfig config;
    config.x = dispatch_config().x;
    config.handle = received_.handle;
    config.stream.cuda_stream = stream_.get();
    const Tensor again = buffer_->dispatch(config).recv_x;
    right = right && download(again) == download(received_.recv_x);
  }
  if (case_.kind != Case::Kind::kCombine && case_.kind != Case::Kind::kCombineForeign) {
    return right;
  }
  const std::vector<std::byte> rows = download(received_.recv_x);
  foreign_rows_ = make_device_memory(rows.size());
  upload(foreign_rows_, rows.data(), rows.size());
  group_.barrier();  // no rank waits in an allocation while another's kernel waits for it
  CombineConfig config;
  config.x = received_.recv_x.view;
  if (case_.kind == Case::Kind::kCombineForeign) config.x.data = foreign_rows_.get();
  config.handle = received_.handle;
  config.stream.cuda_stream = stream_.get();
  return right && sums_are_right(buffer_->combine(config));
}

template <class Operation>
std::vector<double> BenchRank::time(const Operation& operation) {
  std::vector<cudaEvent_t> events(kRepetitions + 1);
  for (cudaEvent_t& event : events) check_cuda(cudaEventCreate(&event), "make an event");
  check_cuda(cudaStreamSynchronize(stream_.get()), "wait");
  group_.barrier();
  for (int i = 0; i < kWarmups; ++i) operation();
  for (int i = 0; i < kRepetitions; ++i) {
    check_cuda(cudaEventRecord(events[static_cast<std::size_t>(i)], stream_.get()), "record");
    operation();
  }
  check_cuda(cudaEventRecord(events.back(), stream_.get()), "record");
  check_cuda(cudaStreamSynchronize(stream_.get()), "wait");
  std::vector<double> times;
  for (std::size_t i = 0; i < kRepetitions; ++i) {
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, events[i], events[i + 1]), "read a time");
    times.push_back(1000.0 * milliseconds);
  }
  group_.barrier();
  for (cudaEvent_t event : events) cudaEventDestroy(event);
  return times;
}

std::vector<double> BenchRank::time_operation() {
  return time([this] { run_once(); });
}

std::vector<double> BenchRank::time_in_graph() {
  check_cuda(cudaStreamSynchronize(stream_.get()), "wait");
  group_.barrier();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  std::vector<std::shared_ptr<void>> held;
  check_cuda(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal), "capture");
  for (int i = 0; i < kOperationsPerGraph; ++i) held.push_back(run_once());
  check_cuda(cudaStreamEndCapture(stream_.get(), &graph), "capture");
  check_cuda(cudaGraphInstantiate(&executable, graph, 0), "make a graph");
  check_cuda(cudaGraphUpload(executable, stream_.get()), "upload a graph");
  check_cuda(cudaStreamSynchronize(stream_.get()), "wait");
  std::vector<double> times =
      time([&] { check_cuda(cudaGraphLaunch(executable, stream_.get()), "launch a graph"); });
  for (double& one : times) one /= kOperationsPerGraph;
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  return times;
}

std::string BenchRank::stages() {
  run_once();
  std::string text;
  for (const StageTime& time : buffer_->last_stage_times()) {
    text += fmt::format("{} {:.1f}, ", stage_name(time.stage), time.microseconds);
  }
  return text.substr(0, text.size() < 2 ? 0 : text.size() - 2);
}

std::size_t BenchRank::bytes_for_floor() const {
  int count = 0;
  check_cuda(cudaGetDeviceCount(&count), "count the GPUs");
  const std::vector<std::byte> prefix = download(received_.handle->rank_prefix_matrix());
  const auto* const ends = reinterpret_cast<const std::int32_t*>(prefix.data());
  const int num_ranks = group_.num_ranks();
  const int own = group_.rank().value();
  std::int64_t rows = 0;
  for (int source = 0; source < num_ranks; ++source) {
    const bool is_local = count > 1 && source % count == device_;
    const std::int64_t before = source == 0 ? 0 : ends[(source - 1) * num_ranks + own];
    if (!is_local) rows += ends[source * num_ranks + own] - before;
  }
  return static_cast<std::size_t>(rows) * case_.row_bytes();
}

std::vector<double> BenchRank::time_floor() {
  const std::size_t bytes = bytes_for_floor();
  int count = 0;
  check_cuda(cudaGetDeviceCount(&count), "count the GPUs");
  const std::shared_ptr<std::byte> to = make_device_memory(bytes + 16);
  check_cuda(cudaSetDevice((device_ + 1) % count), "select a GPU");
  const std::shared_ptr<std::byte> from = make_device_memory(bytes + 16);
  check_cuda(cudaSetDevice(device_), "select a GPU");
  return time([&] {
    check_cuda(cudaMemcpyAsync(to.get(), from.get(), bytes, cudaMemcpyDefault, stream_.get()),
               "copy");
  });
}

}  // namespace moelink::bench
