// Binds the argument structs of the calls on a Buffer.
#include "moelink/config.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>

#include "backend/open_network.hpp"
#include "bindings.hpp"
#include "fields.hpp"
#include "moelink/routing.hpp"

namespace moelink::python {
namespace {

void bind_enums(nb::module_& m) {
  nb::enum_<Layout>(m, "Layout", "Row order of the receive tensors.")
      .value("COMPACT", Layout::kCompact)
      .value("EXPERT_MAJOR", Layout::kExpertMajor);
  nb::enum_<Padding>(m, "Padding", "What fills the rows between the expert groups.")
      .value("ZERO", Padding::kZero)
      .value("LEAVE", Padding::kLeave);
  nb::enum_<Completion>(m, "Completion", "When a call returns.")
      .value("SYNC", Completion::kSync)
      .value("ASYNC", Completion::kAsync);
}

void bind_survival(nb::module_& m) {
  nb::enum_<Survival>(m, "Survival", "What happens when a peer is lost.")
      .value("RAISE", Survival::kRaise)
      .value("MASK", Survival::kMask);
}

void bind_network_path(nb::module_& m) {
  nb::enum_<NetworkPath>(m, "NetworkPath", "How high-throughput tokens cross the network.")
      .value("AUTO", NetworkPath::kAuto)
      .value("HIERARCHICAL", NetworkPath::kHierarchical)
      .value("DIRECT", NetworkPath::kDirect);
  m.def("choose_network_path", &choose_network_path, nb::arg("config"));
}

void bind_device(nb::module_& m) {
  nb::enum_<DeviceKind>(m, "DeviceKind", "Kind of a device.")
      .value("CPU", DeviceKind::kCpu)
      .value("CUDA", DeviceKind::kCuda);
  nb::class_<Device>(m, "Device", "Where the tensors of a buffer live.")
      .def(
          "__init__",
          [](Device* self, DeviceKind kind, int index) { new (self) Device{kind, index}; },
          nb::arg("kind"), nb::arg("index"))
      .def_ro("kind", &Device::kind)
      .def_ro("index", &Device::index);
}

void bind_buffer_config(nb::module_& m) {
  nb::class_<BufferConfig>(m, "BufferConfig")
      .def(nb::init<>())
      .def_rw("device", &BufferConfig::device)
      .def_rw("hidden_bytes", &BufferConfig::hidden_bytes)
      .def_rw("max_symmetric_bytes", &BufferConfig::max_symmetric_bytes)
      .def_rw("max_num_experts", &BufferConfig::max_num_experts)
      .def_rw("num_workers", &BufferConfig::num_workers)
      .def_rw("survival", &BufferConfig::survival)
      .def_rw("network_path", &BufferConfig::network_path)
      .def_prop_rw(
          "stage_clock",
          [](const BufferConfig& self) { return self.stage_clock == StageClock::kOn; },
          [](BufferConfig& self, bool on) {
            self.stage_clock = on ? StageClock::kOn : StageClock::kOff;
          })
      .def_prop_rw(
          "timeout_ms", [](const BufferConfig& self) { return self.timeout.count(); },
          [](BufferConfig& self, std::int64_t value) {
            self.timeout = std::chrono::milliseconds(value);
          });
  nb::class_<StreamOptions> stream(m, "StreamOptions");
  stream.def(nb::init<>())
      .def_rw("completion", &StreamOptions::completion)
      .def_rw("previous_event", &StreamOptions::previous_event)
      .def_rw("num_workers", &StreamOptions::num_workers);
  bind_cuda_stream(stream);
}

void bind_dispatch_configs(nb::module_& m) {
  nb::class_<DispatchConfig>(m, "DispatchConfig")
      .def(nb::init<>())
      .def_rw("x", &DispatchConfig::x)
      .def_rw("scales", &DispatchConfig::scales)
      .def_rw("topk_idx", &DispatchConfig::topk_idx)
      .def_rw("topk_weights", &DispatchConfig::topk_weights)
      .def_rw("is_token_in_rank", &DispatchConfig::is_token_in_rank)
      .def_rw("recv_stats", &DispatchConfig::recv_stats)
      .def_rw("num_experts", &DispatchConfig::num_experts)
      .def_rw("layout", &DispatchConfig::layout)
      .def_rw("expert_alignment", &DispatchConfig::expert_alignment)
      .def_rw("padding", &DispatchConfig::padding)
      .def_rw("num_worst_tokens", &DispatchConfig::num_worst_tokens)
      .def_rw("stream", &DispatchConfig::stream);
  nb::class_<CachedDispatchConfig> cached(m, "CachedDispatchConfig");
  cached.def(nb::init<>())
      .def_rw("x", &CachedDispatchConfig::x)
      .def_rw("scales", &CachedDispatchConfig::scales)
      .def_rw("topk_weights", &CachedDispatchConfig::topk_weights)
      .def_rw("stream", &CachedDispatchConfig::stream);
  bind_handle<Routing>(cached);
}

}  // namespace

void bind_config(nb::module_& m) {
  bind_enums(m);
  bind_survival(m);
  bind_network_path(m);
  bind_device(m);
  bind_buffer_config(m);
  bind_dispatch_configs(m);
  nb::class_<LayoutConfig> layout(m, "LayoutConfig");
  layout.def(nb::init<>())
      .def_rw("topk_idx", &LayoutConfig::topk_idx)
      .def_rw("num_experts", &LayoutConfig::num_experts);
  bind_cuda_stream(layout);
  nb::class_<CombineConfig> combine(m, "CombineConfig");
  combine.def(nb::init<>())
      .def_rw("x", &CombineConfig::x)
      .def_rw("topk_weights", &CombineConfig::topk_weights)
      .def_rw("bias_0", &CombineConfig::bias_0)
      .def_rw("bias_1", &CombineConfig::bias_1)
      .def_rw("out", &CombineConfig::out)
      .def_rw("stream", &CombineConfig::stream);
  bind_handle<Routing>(combine);
}

}  // namespace moelink::python
