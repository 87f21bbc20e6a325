// Binds the result structs of the calls on a Buffer.
#include "moelink/results.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/vector.h>

#include "bindings.hpp"
#include "fields.hpp"
#include "moelink/routing.hpp"

namespace moelink::python {
void bind_results(nb::module_& m) {
  nb::class_<LayoutResult>(m, "LayoutResult")
      .def_prop_ro("num_tokens_per_rank", copy_of(&LayoutResult::num_tokens_per_rank))
      .def_prop_ro("num_tokens_per_node", copy_of(&LayoutResult::num_tokens_per_node))
      .def_prop_ro("num_tokens_per_expert", copy_of(&LayoutResult::num_tokens_per_expert))
      .def_prop_ro("is_token_in_rank", copy_of(&LayoutResult::is_token_in_rank));
  nb::class_<DispatchResult>(m, "DispatchResult")
      .def_prop_ro("recv_x", copy_of(&DispatchResult::recv_x))
      .def_prop_ro("recv_scales", copy_of(&DispatchResult::recv_scales))
      .def_prop_ro("recv_topk_idx", copy_of(&DispatchResult::recv_topk_idx))
      .def_prop_ro("recv_topk_weights", copy_of(&DispatchResult::recv_topk_weights))
      .def_prop_ro("num_recv_tokens_per_expert",
                   copy_of(&DispatchResult::num_recv_tokens_per_expert))
      .def_prop_ro(
          "handle",
          [](const DispatchResult& self) { return std::const_pointer_cast<Routing>(self.handle); })
      .def_prop_ro("event", copy_of(&DispatchResult::event));
  nb::class_<CombineResult>(m, "CombineResult")
      .def_prop_ro("combined_x", copy_of(&CombineResult::combined_x))
      .def_prop_ro("combined_topk_weights", copy_of(&CombineResult::combined_topk_weights))
      .def_prop_ro("event", copy_of(&CombineResult::event));
  nb::class_<MemoryStatistics>(m, "MemoryStatistics")
      .def_ro("symmetric_bytes", &MemoryStatistics::symmetric_bytes)
      .def_ro("control_bytes", &MemoryStatistics::control_bytes)
      .def_ro("live_bytes", &MemoryStatistics::live_bytes)
      .def_ro("peak_live_bytes", &MemoryStatistics::peak_live_bytes)
      .def_ro("capacity_bytes", &MemoryStatistics::capacity_bytes)
      .def_ro("num_window_misses", &MemoryStatistics::num_window_misses)
      .def_ro("num_staged_combines", &MemoryStatistics::num_staged_combines);
  nb::class_<NetworkStatistics>(m, "NetworkStatistics")
      .def_ro("num_dispatch_rows", &NetworkStatistics::num_dispatch_rows)
      .def_ro("num_combine_rows", &NetworkStatistics::num_combine_rows)
      .def_ro("num_messages", &NetworkStatistics::num_messages)
      .def_ro("num_bytes", &NetworkStatistics::num_bytes);
}

}  // namespace moelink::python
