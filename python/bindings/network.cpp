// Binds the check of the network.
#include "moelink/network.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.hpp"
#include "interpreter.hpp"

namespace moelink::python {

void bind_network(nb::module_& m) {
  nb::enum_<NetworkPairs>(m, "NetworkPairs", "Which pairs of ranks are measured.")
      .value("HOSTS", NetworkPairs::kHosts)
      .value("RAILS", NetworkPairs::kRails)
      .value("ALL", NetworkPairs::kAll);
  nb::class_<NetworkCheck>(m, "NetworkCheck")
      .def(nb::init<>())
      .def_rw("pairs", &NetworkCheck::pairs)
      .def_rw("transport", &NetworkCheck::transport)
      .def_rw("provider", &NetworkCheck::provider)
      .def_rw("max_nics", &NetworkCheck::max_nics)
      .def_rw("near_pci", &NetworkCheck::near_pci)
      .def_prop_rw(
          "timeout_ms", [](const NetworkCheck& self) { return self.timeout.count(); },
          [](NetworkCheck& self, std::int64_t value) {
            self.timeout = std::chrono::milliseconds(value);
          });
  nb::class_<NetworkLink>(m, "NetworkLink")
      .def_prop_ro("source", [](const NetworkLink& self) { return self.source.value(); })
      .def_prop_ro("target", [](const NetworkLink& self) { return self.target.value(); })
      .def_ro("small_put_us", &NetworkLink::small_put_us)
      .def_ro("row_put_us", &NetworkLink::row_put_us)
      .def_ro("gb_per_s", &NetworkLink::gb_per_s)
      .def_ro("num_wrong_bytes", &NetworkLink::num_wrong_bytes)
      .def_ro("problem", &NetworkLink::problem);
  nb::class_<NetworkRank>(m, "NetworkRank")
      .def_ro("host_name", &NetworkRank::host_name)
      .def_ro("host", &NetworkRank::host)
      .def_ro("transport", &NetworkRank::transport);
  nb::class_<NetworkReport>(m, "NetworkReport")
      .def_ro("ranks", &NetworkReport::ranks)
      .def_ro("links", &NetworkReport::links);
  m.def("measure_network", &measure_network, nb::arg("group"), nb::arg("check"),
        nb::call_guard<ReleasedGil>());
}

}  // namespace moelink::python
