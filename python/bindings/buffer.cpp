// Binds Buffer: releases the GIL around its calls and keeps the inputs of asynchronous ones alive.
#include "moelink/buffer.hpp"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "interpreter.hpp"
#include "moelink/errors.hpp"
#include "moelink/trace.hpp"

namespace moelink::python {
namespace {

class BoundBuffer {
 public:
  BoundBuffer(const Group& group, const BufferConfig& config) : rank_(group.rank()) {
    const ReleasedGil release;
    buffer_.emplace(group, config);
  }

  // Workers may need the GIL (for a trace hook) before they stop, so it is released here.
  ~BoundBuffer() { abandon(); }

  BoundBuffer(const BoundBuffer&) = delete;
  BoundBuffer& operator=(const BoundBuffer&) = delete;

  // `inputs` holds the Python objects behind the config's views; None: the caller keeps them, and
  // no event is asked for its state, which a CUDA graph being captured would not survive.
  template <class Config>
  auto run(const Config& config, nb::object inputs) {
    const bool keeps_inputs = !inputs.is_none();
    if (keeps_inputs) drop_finished();
    auto result = call(name_of(config), [&](Buffer& buffer) { return start(buffer, config); });
    if (keeps_inputs && result.event.pending())
      in_flight_.push_back({result.event, std::move(inputs)});
    return result;
  }

  // Runs `function(buffer)` without the GIL.
  template <class Function>
  auto call(const char* what, Function&& function) {
    Buffer& buffer = open_buffer(what);
    const ReleasedGil release;
    return function(buffer);
  }

  void close() {
    if (!buffer_) return;
    {
      const ReleasedGil release;
      buffer_->close();
    }
    abandon();
  }

  // Gives everything up without waiting for peers.
  void abandon() {
    {
      const ReleasedGil release;
      buffer_.reset();
    }
    in_flight_.clear();
  }

  bool closed() const { return !buffer_; }

 private:
  struct InFlight {
    Event event;
    nb::object inputs;
  };

  static const char* name_of(const DispatchConfig&) { return "dispatch"; }
  static const char* name_of(const CachedDispatchConfig&) { return "dispatch"; }
  static const char* name_of(const CombineConfig&) { return "combine"; }
  static const char* name_of(const LowLatencyDispatchConfig&) { return "low_latency_dispatch"; }
  static const char* name_of(const LowLatencyCombineConfig&) { return "low_latency_combine"; }

  static DispatchResult start(Buffer& buffer, const DispatchConfig& config) {
    return buffer.dispatch(config);
  }
  static DispatchResult start(Buffer& buffer, const CachedDispatchConfig& config) {
    return buffer.dispatch(config);
  }
  static CombineResult start(Buffer& buffer, const CombineConfig& config) {
    return buffer.combine(config);
  }

  static LowLatencyDispatchResult start(Buffer& buffer, const LowLatencyDispatchConfig& config) {
    return buffer.low_latency_dispatch(config);
  }
  static LowLatencyCombineResult start(Buffer& buffer, const LowLatencyCombineConfig& config) {
    return buffer.low_latency_combine(config);
  }

  Buffer& open_buffer(const char* what) {
    if (buffer_) return *buffer_;
    throw Error(
        ErrorCode::kInvalidArgument,
        std::string(what) + " (rank " + std::to_string(rank_.value()) + "): the buffer is closed");
  }

  void drop_finished() {
    std::erase_if(in_flight_, [](const InFlight& entry) { return !entry.event.pending(); });
  }

  Rank rank_;
  std::vector<InFlight> in_flight_;
  std::optional<Buffer> buffer_;
};

Tensor empty_tensor(Buffer& buffer, DType dtype, const std::vector<std::int64_t>& shape) {
  switch (shape.size()) {
    case 1:
      return buffer.empty(dtype, {shape[0]});
    case 2:
      return buffer.empty(dtype, {shape[0], shape[1]});
    case 3:
      return buffer.empty(dtype, {shape[0], shape[1], shape[2]});
    case 4:
      return buffer.empty(dtype, {shape[0], shape[1], shape[2], shape[3]});
    default:
      throw Error(ErrorCode::kInvalidArgument, "empty: shape has " + std::to_string(shape.size()) +
                                                   " dimensions, expected 1 to 4");
  }
}

std::vector<std::int64_t> shape_from(const nb::tuple& shape) {
  std::vector<std::int64_t> dims;
  for (nb::handle dim : shape) dims.push_back(nb::cast<std::int64_t>(dim));
  return dims;
}

void bind_low_latency_calls(nb::class_<BoundBuffer>& buffer) {
  using Handle = std::shared_ptr<LowLatencyRouting>;
  buffer
      .def("low_latency_dispatch", &BoundBuffer::run<LowLatencyDispatchConfig>, nb::arg("config"),
           nb::arg("inputs").none())
      .def("low_latency_combine", &BoundBuffer::run<LowLatencyCombineConfig>, nb::arg("config"),
           nb::arg("inputs").none())
      .def(
          "low_latency_combine_buffer",
          [](BoundBuffer& self, const Handle& handle) {
            return self.call("low_latency_combine_buffer",
                             [&](Buffer& core) { return core.low_latency_combine_buffer(handle); });
          },
          nb::arg("handle"))
      .def("clean_low_latency",
           [](BoundBuffer& self) {
             self.call("clean_low_latency", [](Buffer& core) { core.clean_low_latency(); });
           })
      .def_static("low_latency_size_hint", &Buffer::low_latency_size_hint,
                  nb::arg("num_max_tokens_per_rank"), nb::arg("hidden"), nb::arg("num_ranks"),
                  nb::arg("num_topk"));
}

void bind_masks(nb::class_<BoundBuffer>& buffer) {
  buffer
      .def(
          "mask_rank",
          [](BoundBuffer& self, int rank) {
            self.call("mask_rank", [&](Buffer& core) { core.mask_rank(Rank(rank)); });
          },
          nb::arg("rank"))
      .def(
          "unmask_rank",
          [](BoundBuffer& self, int rank) {
            self.call("unmask_rank", [&](Buffer& core) { core.unmask_rank(Rank(rank)); });
          },
          nb::arg("rank"))
      .def(
          "is_masked",
          [](BoundBuffer& self, int rank) {
            return self.call("is_masked", [&](Buffer& core) { return core.is_masked(Rank(rank)); });
          },
          nb::arg("rank"));
}

std::vector<std::pair<std::string, double>> stage_times(BoundBuffer& self) {
  std::vector<std::pair<std::string, double>> times;
  for (const StageTime& time :
       self.call("last_stage_times", [](Buffer& buffer) { return buffer.last_stage_times(); })) {
    times.emplace_back(stage_name(time.stage), time.microseconds);
  }
  return times;
}

}  // namespace

void bind_buffer(nb::module_& m) {
  nb::class_<BoundBuffer> bound(m, "Buffer");
  bind_low_latency_calls(bound);
  bind_masks(bound);
  bound.def(nb::init<const Group&, const BufferConfig&>(), nb::arg("group"), nb::arg("config"))
      .def(
          "query_layout",
          [](BoundBuffer& self, const LayoutConfig& config) {
            return self.call("query_layout",
                             [&](Buffer& buffer) { return buffer.query_layout(config); });
          },
          nb::arg("config"))
      .def("dispatch", &BoundBuffer::run<DispatchConfig>, nb::arg("config"),
           nb::arg("inputs").none())
      .def("dispatch", &BoundBuffer::run<CachedDispatchConfig>, nb::arg("config"),
           nb::arg("inputs").none())
      .def("combine", &BoundBuffer::run<CombineConfig>, nb::arg("config"), nb::arg("inputs").none())
      .def(
          "empty",
          [](BoundBuffer& self, DType dtype, const nb::tuple& shape) {
            const std::vector<std::int64_t> dims = shape_from(shape);
            return self.call("empty",
                             [&](Buffer& buffer) { return empty_tensor(buffer, dtype, dims); });
          },
          nb::arg("dtype"), nb::arg("shape"))
      .def(
          "barrier",
          [](BoundBuffer& self) { self.call("barrier", [](Buffer& buffer) { buffer.barrier(); }); })
      .def("memory_statistics",
           [](BoundBuffer& self) {
             return self.call("memory_statistics",
                              [](Buffer& buffer) { return buffer.memory_statistics(); });
           })
      .def("network_statistics",
           [](BoundBuffer& self) {
             return self.call("network_statistics",
                              [](Buffer& buffer) { return buffer.network_statistics(); });
           })
      .def("last_stage_times", &stage_times)
      .def("close", &BoundBuffer::close)
      .def("abandon", &BoundBuffer::abandon)
      .def_prop_ro("closed", &BoundBuffer::closed);
}

}  // namespace moelink::python
