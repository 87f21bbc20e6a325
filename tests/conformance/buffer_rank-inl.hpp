// How a rank under test makes its arguments and checks its results.
#pragma once

#include "conformance/buffer_rank.hpp"

namespace moelink::test {

inline Tensor BufferRank::put(const void* data, DType dtype,
                              std::initializer_list<std::int64_t> shape) const {
  Tensor tensor;
  tensor.view = TensorView::contiguous(nullptr, dtype, shape);
  tensor.storage = kind_.allocate(tensor.view.num_bytes());
  tensor.view.data = tensor.storage.get();
  if (tensor.view.num_bytes() > 0) kind_.upload(tensor.view.data, data, tensor.view.num_bytes());
  return tensor;
}

inline Tensor BufferRank::arrange_scales(const BufferCase& one, const Sent& sent) const {
  const auto columns = static_cast<std::int64_t>(scales_per_row(one));
  const bool turned = one.scales == ScaleKind::kColumnMajor;
  const std::size_t size = dtype_size(scale_dtype(one.scales));
  Bytes arranged(sent.scales.size());
  for (std::int64_t i = 0; i < sent.num_tokens * columns; ++i) {
    const std::int64_t at = turned ? i % columns * sent.num_tokens + i / columns : i;
    std::memcpy(&arranged[static_cast<std::size_t>(at) * size],
                &sent.scales[static_cast<std::size_t>(i) * size], size);
  }
  Tensor scales = put(arranged.data(), scale_dtype(one.scales), {sent.num_tokens, columns});
  if (turned) scales.view.strides = {1, sent.num_tokens};
  return scales;
}

inline DispatchArguments BufferRank::arguments(const BufferCase& one,
                                               const Problem& problem) const {
  const Sent& sent = problem.of(rank());
  const std::int64_t num_tokens = sent.num_tokens;
  DispatchArguments made;
  made.x = put(sent.payload.data(), one.dtype, {num_tokens, one.num_channels});
  made.config.x = made.x.view;
  if (problem.num_topk > 0) {
    const std::vector<std::int32_t> narrow(sent.ids.begin(), sent.ids.end());
    const void* const ids = one.index_dtype == DType::kInt64
                                ? static_cast<const void*>(sent.ids.data())
                                : static_cast<const void*>(narrow.data());
    made.topk_idx = put(ids, one.index_dtype, {num_tokens, problem.num_topk});
    made.config.topk_idx = made.topk_idx.view;
    made.config.num_experts = problem.num_experts();
  }
  if (problem.num_topk > 0 && one.weights == WeightKind::kGiven) {
    made.topk_weights = put(sent.weights.data(), DType::kFloat32, {num_tokens, problem.num_topk});
    made.config.topk_weights = made.topk_weights->view;
  }
  if (one.mask != MaskKind::kNone) {
    made.mask = put(sent.mask.data(), DType::kBool, {num_tokens, num_ranks()});
    made.config.is_token_in_rank = made.mask->view;
  }
  if (one.scales != ScaleKind::kNone) {
    made.scales = arrange_scales(one, sent);
    made.config.scales = made.scales->view;
  }
  made.config.layout = problem.layout;
  made.config.expert_alignment = static_cast<int>(problem.alignment);
  return made;
}

inline CombineArguments BufferRank::arguments(const Problem& problem,
                                              const DispatchResult& received,
                                              const CombineOptions& options) {
  const Returned returned = make_returned(options.dtype, options.num_channels, options.seed);
  const std::int64_t num_rows = received.handle->num_recv_rows();
  const std::int64_t num_tokens = problem.of(rank()).num_tokens;
  Bytes rows(static_cast<std::size_t>(num_rows) * returned.row_bytes());
  for (std::int64_t row = 0; row < num_rows; ++row) {
    returned.fill_row(rank(), row, &rows[static_cast<std::size_t>(row) * returned.row_bytes()]);
  }
  CombineArguments made;
  if (options.place == CombineOptions::Place::kSymmetric) {
    made.x = buffer.empty(options.dtype, {num_rows, options.num_channels});
    if (!rows.empty()) kind_.upload(made.x.view.data, rows.data(), rows.size());
  } else {
    made.x = put(rows.data(), options.dtype, {num_rows, options.num_channels});
  }
  if (options.weights == WeightKind::kGiven) {
    const bool compact = problem.layout == Layout::kCompact;
    std::vector<float> weights;
    for (std::int64_t i = 0; i < num_rows * (compact ? problem.num_topk : 1); ++i) {
      weights.push_back(returned.weight(rank(), i));
    }
    made.weights = compact ? put(weights.data(), DType::kFloat32, {num_rows, problem.num_topk})
                           : put(weights.data(), DType::kFloat32, {num_rows});
    made.config.topk_weights = made.weights->view;
  }
  add_biases(options, num_tokens, made);
  if (options.into_out) {
    const Bytes junk(static_cast<std::size_t>(num_tokens) * returned.row_bytes(), std::byte{0x5a});
    made.out = put(junk.data(), options.dtype, {num_tokens, options.num_channels});
    made.config.out = made.out->view;
  }
  made.config.x = made.x.view;
  made.config.handle = received.handle;
  made.config.stream = options.stream;
  return made;
}

inline void BufferRank::add_biases(const CombineOptions& options, std::int64_t num_tokens,
                                   CombineArguments& made) const {
  const auto num_elements = static_cast<std::size_t>(num_tokens * options.num_channels);
  for (int i = 0; i < options.num_biases; ++i) {
    Bytes& bias = made.bias_bytes[i];
    bias.resize(num_elements * dtype_size(options.dtype));
    fill_numbers(bias.data(), options.dtype, num_elements,
                 Random(options.seed + 7, static_cast<std::uint64_t>(i)));
    made.biases.push_back(put(bias.data(), options.dtype, {num_tokens, options.num_channels}));
  }
  if (options.num_biases > 0) made.config.bias_0 = made.biases[0].view;
  if (options.num_biases > 1) made.config.bias_1 = made.biases[1].view;
}

inline DispatchResult BufferRank::dispatch(const BufferCase& one, const StreamOptions& stream) {
  const Problem problem = make_problem(one);
  DispatchArguments made = arguments(one, problem);
  made.config.stream = stream;
  const DispatchResult result = buffer.dispatch(made.config);
  check(one, problem, result);
  return result;
}

inline void BufferRank::combine(const BufferCase& one, const DispatchResult& received,
                                const CombineOptions& options) {
  const Problem problem = make_problem(one);
  const CombineArguments made = arguments(problem, received, options);
  check(problem, options, made, buffer.combine(made.config));
}

inline void BufferRank::round_trip(const BufferCase& one) {
  const DispatchResult received = dispatch(one);
  if (dtype_traits(one.dtype).reducible == Reducible::kNo) return;
  combine(one, received,
          {.dtype = one.dtype, .num_channels = one.num_channels, .seed = one.seed + 50});
}

inline Bytes BufferRank::bytes_of(const char* name, const Tensor& tensor, DType dtype,
                                  std::initializer_list<std::int64_t> shape) const {
  const TensorView wanted = TensorView::contiguous(nullptr, dtype, shape);
  require(tensor.view.describe() == wanted.describe(), "{} is {}, expected {}", name,
          tensor.view.describe(), wanted.describe());
  require(tensor.view.is_contiguous(), "{} is not contiguous", name);
  Bytes bytes(tensor.view.num_bytes());
  if (!bytes.empty()) kind_.download(bytes.data(), tensor.view.data, bytes.size());
  return bytes;
}

inline void BufferRank::expect_bytes(const char* name, const Bytes& seen,
                                     const Bytes& expected) const {
  require(seen.size() == expected.size(), "{} has {} bytes, expected {}", name, seen.size(),
          expected.size());
  const auto [at, other] = std::ranges::mismatch(seen, expected);
  require(at == seen.end(), "{}: byte {} differs", name, at - seen.begin());
}

inline void BufferRank::check(const BufferCase& one, const Problem& problem,
                              const DispatchResult& result) const {
  result.event.wait();
  const ReceivedRows expected = received_rows(problem, rank());
  const auto num_rows = static_cast<std::int64_t>(expected.rows.size());
  const std::int64_t whole = result.handle->num_recv_rows();
  require(whole >= num_rows, "there are {} rows, expected {}", whole, num_rows);
  Bytes payload = bytes_of("recv_x", result.recv_x, one.dtype, {whole, one.num_channels});
  payload.resize(expected.rows.size() * problem.row_bytes);  // a tail is unspecified
  expect_bytes("recv_x", payload,
               gather_rows(problem, expected.rows, &Sent::payload, problem.row_bytes));
  require(result.recv_scales.has_value() == (one.scales != ScaleKind::kNone), "recv_scales: {}",
          result.recv_scales.has_value());
  if (result.recv_scales) {
    const auto columns = static_cast<std::int64_t>(scales_per_row(one));
    Bytes scales =
        bytes_of("recv_scales", *result.recv_scales, scale_dtype(one.scales), {whole, columns});
    scales.resize(expected.rows.size() * problem.scale_bytes);
    expect_bytes("recv_scales", scales,
                 gather_rows(problem, expected.rows, &Sent::scales, problem.scale_bytes));
  }
  check_topk(one, problem, expected, result);
  check_handle(one, problem, expected, *result.handle);
}

inline void BufferRank::check_topk(const BufferCase& one, const Problem& problem,
                                   const ReceivedRows& expected,
                                   const DispatchResult& result) const {
  const std::int64_t whole = result.handle->num_recv_rows();
  const bool compact = problem.layout == Layout::kCompact;
  const bool has_ids = compact && problem.num_topk > 0;
  require(result.recv_topk_idx.has_value() == has_ids, "recv_topk_idx: {}", !has_ids);
  const auto entries = static_cast<std::size_t>(whole * problem.num_topk);
  if (has_ids) {
    std::vector<std::int64_t> ids = received_ids(problem, rank(), expected.rows);
    ids.resize(entries, -1);
    const std::vector<std::int32_t> narrow(ids.begin(), ids.end());
    const std::initializer_list<std::int64_t> shape = {whole, problem.num_topk};
    const bool same = one.index_dtype == DType::kInt64
                          ? values_of<std::int64_t>("recv_topk_idx", *result.recv_topk_idx,
                                                    DType::kInt64, shape) == ids
                          : values_of<std::int32_t>("recv_topk_idx", *result.recv_topk_idx,
                                                    DType::kInt32, shape) == narrow;
    require(same, "recv_topk_idx differs");
  }
  const bool has_weights = problem.num_topk > 0 && one.weights == WeightKind::kGiven;
  require(result.recv_topk_weights.has_value() == has_weights, "weights: {}", !has_weights);
  if (!has_weights) return;
  std::vector<float> weights = received_weights(problem, rank(), expected.rows);
  weights.resize(compact ? entries : static_cast<std::size_t>(whole), 0.0F);
  const Tensor& seen = *result.recv_topk_weights;
  const bool same =
      compact
          ? values_of<float>("weights", seen, DType::kFloat32, {whole, problem.num_topk}) == weights
          : values_of<float>("weights", seen, DType::kFloat32, {whole}) == weights;
  require(same, "recv_topk_weights differ");
}

inline void BufferRank::check_sent(const Problem& problem, const Routing& handle) const {
  const std::int64_t num_tokens = problem.of(rank()).num_tokens;
  Bytes in_rank;
  for (std::int64_t i = 0; i < num_tokens * num_ranks(); ++i) {
    const bool sent = problem.is_sent(rank(), i / num_ranks(), static_cast<int>(i % num_ranks()));
    in_rank.push_back(static_cast<std::byte>(sent));
  }
  expect_bytes("is_token_in_rank",
               bytes_of("is_token_in_rank", handle.is_token_in_rank(), DType::kBool,
                        {num_tokens, num_ranks()}),
               in_rank);
  std::vector<std::int32_t> prefix;
  for (int source = 0; source < num_ranks(); ++source) {
    for (int peer = 0; peer < num_ranks(); ++peer) {
      std::int32_t sum = source == 0 ? 0 : prefix[prefix.size() - problem.sent.size()];
      for (std::int64_t token = 0; token < problem.of(source).num_tokens; ++token) {
        sum += problem.is_sent(source, token, peer) ? 1 : 0;
      }
      prefix.push_back(sum);
    }
  }
  require(values_of<std::int32_t>("rank_prefix_matrix", handle.rank_prefix_matrix(), DType::kInt32,
                                  {num_ranks(), num_ranks()}) == prefix,
          "rank_prefix_matrix differs");
}

inline void BufferRank::check_handle(const BufferCase& one, const Problem& problem,
                                     const ReceivedRows& expected, const Routing& handle) const {
  const Sent& sent = problem.of(rank());
  const auto num_tokens = static_cast<std::int64_t>(expected.tokens.size());
  require(handle.num_tokens() == sent.num_tokens, "num_tokens is {}", handle.num_tokens());
  require(handle.num_recv_tokens() == num_tokens, "N is {}", handle.num_recv_tokens());
  require(handle.num_topk() == problem.num_topk, "num_topk is {}", handle.num_topk());
  require(handle.layout() == one.layout, "layout is wrong");
  require(handle.expert_alignment() == one.alignment, "alignment is {}", handle.expert_alignment());
  check_sent(problem, handle);
  std::vector<std::int32_t> sources;
  for (const Origin& origin : expected.tokens) {
    sources.push_back(static_cast<std::int32_t>(origin.token));
  }
  require(values_of<std::int32_t>("recv_src_token", handle.recv_src_token(), DType::kInt32,
                                  {num_tokens}) == sources,
          "recv_src_token differs");
  const std::int64_t num_local = problem.num_topk > 0 ? problem.experts_per_rank : 0;
  const auto per_expert = values_of<std::int32_t>(
      "recv_tokens_per_expert", handle.recv_tokens_per_expert(), DType::kInt32, {num_local});
  require(num_local == 0 || per_expert == expected.per_expert, "recv_tokens_per_expert differs");
  if (one.layout == Layout::kCompact) return;
  std::vector<std::int32_t> rows;
  for (const Origin& origin : expected.tokens) {
    for (int k = 0; k < problem.num_topk; ++k) {
      const auto row = expected.position.find({origin.source, origin.token, k});
      rows.push_back(row == expected.position.end() ? -1 : static_cast<std::int32_t>(row->second));
    }
  }
  require(values_of<std::int32_t>("recv_expert_row", handle.recv_expert_row(), DType::kInt32,
                                  {num_tokens, problem.num_topk}) == rows,
          "recv_expert_row differs");
}

inline void BufferRank::check(const Problem& problem, const CombineOptions& options,
                              const CombineArguments& arguments,
                              const CombineResult& result) const {
  result.event.wait();
  const Returned returned = make_returned(options.dtype, options.num_channels, options.seed);
  const ReferenceCombine reference(problem, returned, rank());
  const std::int64_t num_tokens = problem.of(rank()).num_tokens;
  const std::size_t channels = returned.num_channels;
  Bytes expected(static_cast<std::size_t>(num_tokens) * returned.row_bytes());
  for (std::int64_t token = 0; token < num_tokens; ++token) {
    std::byte* const row = expected.data() + static_cast<std::size_t>(token) * returned.row_bytes();
    std::vector<float> sum(channels);
    for (int i = 0; i < options.num_biases; ++i) {
      const std::byte* const bias = arguments.bias_bytes[i].data() + (row - expected.data());
      for (std::size_t c = 0; c < channels; ++c) sum[c] += load_element(bias, options.dtype, c);
    }
    sum = reference.token(token, std::move(sum));
    for (std::size_t c = 0; c < channels; ++c) store_element(row, options.dtype, c, sum[c]);
  }
  expect_bytes(
      "combined_x",
      bytes_of("combined_x", result.combined_x, options.dtype, {num_tokens, options.num_channels}),
      expected);
  require(!options.into_out || result.combined_x.view.data == arguments.config.out->data,
          "the result is not in out");
  const bool weighted = options.weights == WeightKind::kGiven;
  require(result.combined_topk_weights.has_value() == weighted, "weights: {}", !weighted);
  if (!weighted) return;
  std::vector<float> weights;
  for (std::int64_t i = 0; i < num_tokens * problem.num_topk; ++i) {
    weights.push_back(
        reference.weight(i / problem.num_topk, static_cast<int>(i % problem.num_topk)));
  }
  require(values_of<float>("combined_topk_weights", *result.combined_topk_weights, DType::kFloat32,
                           {num_tokens, problem.num_topk}) == weights,
          "combined_topk_weights differ");
}

}  // namespace moelink::test
