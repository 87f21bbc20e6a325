// Binds Routing, the handle of a dispatch.
#include "moelink/routing.hpp"

#include <nanobind/stl/shared_ptr.h>

#include "bindings.hpp"

namespace moelink::python {

void bind_routing(nb::module_& m) {
  nb::class_<Routing>(m, "Routing")
      .def_prop_ro("num_tokens", &Routing::num_tokens)
      .def_prop_ro("num_recv_tokens", &Routing::num_recv_tokens)
      .def_prop_ro("num_recv_rows", &Routing::num_recv_rows)
      .def_prop_ro("num_topk", &Routing::num_topk)
      .def_prop_ro("num_experts", &Routing::num_experts)
      .def_prop_ro("expert_alignment", &Routing::expert_alignment)
      .def_prop_ro("layout", &Routing::layout)
      .def("is_token_in_rank", &Routing::is_token_in_rank)
      .def("recv_src_token", &Routing::recv_src_token)
      .def("rank_prefix_matrix", &Routing::rank_prefix_matrix)
      .def("recv_tokens_per_expert", &Routing::recv_tokens_per_expert)
      .def("recv_expert_row", &Routing::recv_expert_row);
}

}  // namespace moelink::python
