// Binds Group and the ways to form one.
#include "moelink/group.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.hpp"
#include "interpreter.hpp"
#include "moelink/errors.hpp"

namespace moelink::python {
namespace {

std::string as_string(const nb::bytes& blob) { return {blob.c_str(), blob.size()}; }

nb::bytes as_bytes(const std::string& blob) { return nb::bytes(blob.data(), blob.size()); }

nb::list as_bytes_list(const std::vector<std::string>& blobs) {
  nb::list list;
  for (const std::string& blob : blobs) list.append(as_bytes(blob));
  return list;
}

// `callable` maps bytes to a sequence of bytes. What it raises travels through the C++ caller.
AllGather make_all_gather(nb::object callable) {
  return [callable = share(std::move(callable))](const std::string& blob) {
    nb::gil_scoped_acquire gil;
    std::vector<std::string> blobs;
    for (nb::handle item : nb::object(nb::handle(callable.get())(as_bytes(blob)))) {
      if (!nb::isinstance<nb::bytes>(item)) {
        throw Error(ErrorCode::kInvalidArgument,
                    "all_gather: an element of the result is not bytes");
      }
      blobs.push_back(as_string(nb::borrow<nb::bytes>(item)));
    }
    return blobs;
  };
}

// Runs a collective without the GIL.
template <class Function>
auto released(Function&& function) {
  const ReleasedGil release;
  return function();
}

Group group_from_callback(int rank, int num_ranks, nb::object callable,
                          const GroupOptions& options) {
  AllGather all_gather = make_all_gather(std::move(callable));
  return released([&] { return Group::from_callback(Rank(rank), num_ranks, all_gather, options); });
}

}  // namespace

void bind_group(nb::module_& m) {
  nb::class_<GroupOptions>(m, "GroupOptions")
      .def(nb::init<>())
      .def_prop_rw(
          "timeout_ms", [](const GroupOptions& self) { return self.timeout.count(); },
          [](GroupOptions& self, std::int64_t value) {
            self.timeout = std::chrono::milliseconds(value);
          })
      .def_rw("num_nodes", &GroupOptions::num_nodes);
  nb::class_<RendezvousConfig>(m, "RendezvousConfig")
      .def(nb::init<>())
      .def_prop_rw(
          "rank", [](const RendezvousConfig& self) { return self.rank.value(); },
          [](RendezvousConfig& self, int value) { self.rank = Rank(value); })
      .def_rw("num_ranks", &RendezvousConfig::num_ranks)
      .def_rw("host", &RendezvousConfig::host)
      .def_rw("port", &RendezvousConfig::port)
      .def_rw("secret", &RendezvousConfig::secret);
  nb::class_<Group>(m, "Group")
      .def_static("from_callback", &group_from_callback, nb::arg("rank"), nb::arg("num_ranks"),
                  nb::arg("all_gather"), nb::arg("options"))
      .def_static("from_environment", &Group::from_environment, nb::arg("options"),
                  nb::call_guard<ReleasedGil>())
      .def_static("connect", &Group::connect, nb::arg("config"), nb::arg("options"),
                  nb::call_guard<ReleasedGil>())
      .def_static("of_threads", &Group::of_threads, nb::arg("num_ranks"), nb::arg("options"),
                  nb::call_guard<ReleasedGil>())
      .def_prop_ro("rank", [](const Group& self) { return self.rank().value(); })
      .def_prop_ro("num_ranks", &Group::num_ranks)
      .def_prop_ro("num_nodes", [](const Group& self) { return self.topology().num_nodes; })
      .def_prop_ro("timeout_ms", [](const Group& self) { return self.timeout().count(); })
      .def(
          "all_gather",
          [](const Group& self, const nb::bytes& blob) {
            const std::string mine = as_string(blob);
            return as_bytes_list(released([&] { return self.all_gather(mine); }));
          },
          nb::arg("blob"))
      .def("barrier", &Group::barrier, nb::call_guard<ReleasedGil>());
}

}  // namespace moelink::python
