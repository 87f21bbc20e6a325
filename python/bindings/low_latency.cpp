// Binds the arguments and results of the low latency calls.
#include "moelink/low_latency.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>

#include "bindings.hpp"
#include "exchange.hpp"
#include "fields.hpp"
#include "interpreter.hpp"

namespace moelink::python {
namespace {

void bind_enums(nb::module_& m) {
  nb::enum_<LowLatencyLayout>(m, "LowLatencyLayout", "Row order of what a dispatch returns.")
      .value("PER_EXPERT", LowLatencyLayout::kPerExpert)
      .value("PER_RANK", LowLatencyLayout::kPerRank);
  nb::enum_<CombineNumerics>(m, "CombineNumerics", "Where the weighted sum is made.")
      .value("EXACT", CombineNumerics::kExact)
      .value("PRE_REDUCED", CombineNumerics::kPreReduced);
  nb::enum_<ReceivePhase>(m, "ReceivePhase", "When the receiving half runs.")
      .value("IN_CALL", ReceivePhase::kInCall)
      .value("BY_HOOK", ReceivePhase::kByHook);
  nb::enum_<CombineInput>(m, "CombineInput", "Where combine takes its rows from.")
      .value("TENSOR", CombineInput::kTensor)
      .value("NEXT_AREA", CombineInput::kNextArea);
}

// Both return false, and set nothing, where the tensors must go through Python.
bool set_dispatch_tensors(LowLatencyDispatchConfig& config, const nb::tuple& tensors,
                          const Device& device) {
  const std::optional<CallViews> views = exchange_views(tensors, device);
  if (!views) return false;
  const auto& [x, topk_idx, topk_weights, recv_stats, wait_cost] = *views;
  if (!topk_idx) return false;
  config.x = *x;
  config.topk_idx = *topk_idx;
  config.topk_weights = topk_weights;
  config.recv_stats = recv_stats;
  config.wait_cost = wait_cost;
  return true;
}

bool set_combine_tensors(LowLatencyCombineConfig& config, const nb::tuple& tensors,
                         const Device& device) {
  const std::optional<CallViews> views = exchange_views(tensors, device);
  if (!views) return false;
  const auto& [x, topk_idx, topk_weights, out, wait_cost] = *views;
  if (!topk_idx) return false;
  config.x = *x;
  config.topk_idx = *topk_idx;
  config.topk_weights = topk_weights.value_or(TensorView{});
  config.out = out;
  config.wait_cost = wait_cost;
  return true;
}

void bind_dispatch_config(nb::module_& m) {
  using Dispatch = LowLatencyDispatchConfig;
  nb::class_<Dispatch>(m, "LowLatencyDispatchConfig")
      .def(
          "__init__",
          [](Dispatch* self, int num_max_tokens_per_rank, int num_experts,
             LowLatencyLayout layout) {
            new (self) Dispatch{.num_max_tokens_per_rank = num_max_tokens_per_rank,
                                .num_experts = num_experts,
                                .layout = layout};
          },
          nb::arg("num_max_tokens_per_rank"), nb::arg("num_experts"), nb::arg("layout"))
      .def("set_tensors", &set_dispatch_tensors, nb::arg("tensors"), nb::arg("device"))
      .def_rw("x", &Dispatch::x)
      .def_rw("topk_idx", &Dispatch::topk_idx)
      .def_rw("topk_weights", &Dispatch::topk_weights)
      .def_rw("fp8", &Dispatch::fp8)
      .def_rw("recv_stats", &Dispatch::recv_stats)
      .def_rw("wait_cost", &Dispatch::wait_cost)
      .def_rw("receive", &Dispatch::receive)
      .def_rw("stream", &Dispatch::stream);
}

void bind_combine_config(nb::module_& m) {
  using Combine = LowLatencyCombineConfig;
  nb::class_<Combine>(m, "LowLatencyCombineConfig")
      .def(
          "__init__",
          [](Combine* self, const std::shared_ptr<LowLatencyRouting>& handle,
             CombineNumerics numerics) {
            new (self) Combine{.handle = handle, .numerics = numerics};
          },
          nb::arg("handle"), nb::arg("numerics"))
      .def("set_tensors", &set_combine_tensors, nb::arg("tensors"), nb::arg("device"))
      .def_rw("x", &Combine::x)
      .def_rw("topk_idx", &Combine::topk_idx)
      .def_rw("topk_weights", &Combine::topk_weights)
      .def_rw("input", &Combine::input)
      .def_rw("out", &Combine::out)
      .def_rw("wait_cost", &Combine::wait_cost)
      .def_rw("receive", &Combine::receive)
      .def_rw("stream", &Combine::stream);
}

// The receiving half; waits for peers, so it runs without the GIL.
template <class Result>
void receive(const Result& result) {
  const ReceiveHook hook = result.hook;
  const ReleasedGil release;
  hook();
}

// The scales in memory order, [groups, columns, rows], so that every consumer sees a contiguous
// tensor.
std::optional<Tensor> scales_by_column(const LowLatencyDispatchResult& result) {
  if (!result.recv_scales) return std::nullopt;
  Tensor scales = *result.recv_scales;
  const auto& shape = scales.view.shape;
  scales.view =
      TensorView::contiguous(scales.view.data, scales.view.dtype, {shape[0], shape[2], shape[1]});
  return scales;
}

void bind_call_results(nb::module_& m) {
  using Dispatch = LowLatencyDispatchResult;
  nb::class_<Dispatch>(m, "LowLatencyDispatchResult")
      .def_prop_ro("recv_x", copy_of(&Dispatch::recv_x))
      .def(
          "recv_x_like",
          [](const Dispatch& self, nb::handle like, const Device& device) {
            return exchange_tensor(self.recv_x, like, device);
          },
          nb::arg("like"), nb::arg("device"))
      .def_prop_ro("recv_scales_by_column", &scales_by_column)
      .def_prop_ro("recv_count", copy_of(&Dispatch::recv_count))
      .def_prop_ro("recv_topk_idx", copy_of(&Dispatch::recv_topk_idx))
      .def_prop_ro("recv_topk_weights", copy_of(&Dispatch::recv_topk_weights))
      .def_prop_ro("handle",
                   [](const Dispatch& self) {
                     return std::const_pointer_cast<LowLatencyRouting>(self.handle);
                   })
      .def_prop_ro("event", copy_of(&Dispatch::event))
      .def("receive", &receive<Dispatch>);
  using Combine = LowLatencyCombineResult;
  nb::class_<Combine>(m, "LowLatencyCombineResult")
      .def_prop_ro("combined_x", copy_of(&Combine::combined_x))
      .def(
          "combined_x_like",
          [](const Combine& self, nb::handle like, const Device& device) {
            return exchange_tensor(self.combined_x, like, device);
          },
          nb::arg("like"), nb::arg("device"))
      .def_prop_ro("event", copy_of(&Combine::event))
      .def("receive", &receive<Combine>);
}

}  // namespace

void bind_low_latency(nb::module_& m) {
  bind_enums(m);
  nb::class_<LowLatencyRouting>(m, "LowLatencyRouting")
      .def_ro("layout", &LowLatencyRouting::layout)
      .def_ro("num_tokens", &LowLatencyRouting::num_tokens)
      .def_ro("num_max_tokens_per_rank", &LowLatencyRouting::num_max_tokens_per_rank)
      .def_ro("hidden", &LowLatencyRouting::hidden)
      .def_ro("num_experts", &LowLatencyRouting::num_experts)
      .def_ro("num_topk", &LowLatencyRouting::num_topk)
      .def_prop_ro("src_info", copy_of(&LowLatencyRouting::src_info))
      .def_prop_ro("layout_range", copy_of(&LowLatencyRouting::layout_range))
      .def_prop_ro("recv_count", copy_of(&LowLatencyRouting::recv_count));
  bind_dispatch_config(m);
  bind_combine_config(m);
  bind_call_results(m);
}

}  // namespace moelink::python
