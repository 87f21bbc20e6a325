// Fields of structs as Python properties.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "bindings.hpp"

namespace moelink::python {

// A getter that hands out copies, so that a tensor does not keep the whole result alive.
template <class Struct, class Field>
auto copy_of(Field Struct::* field) {
  return [field](const Struct& self) { return self.*field; };
}

// The field `handle` of a config. Python knows no const, so it is taken off and put on here.
template <class Handle, class Config>
void bind_handle(nb::class_<Config>& config) {
  config.def_prop_rw(
      "handle", [](const Config& self) { return std::const_pointer_cast<Handle>(self.handle); },
      [](Config& self, std::shared_ptr<Handle> handle) { self.handle = std::move(handle); });
}

// The field `cuda_stream` of a config: a number in Python, as torch's streams have it.
template <class Config>
void bind_cuda_stream(nb::class_<Config>& config) {
  config.def_prop_rw(
      "cuda_stream",
      [](const Config& self) { return reinterpret_cast<std::uintptr_t>(self.cuda_stream); },
      [](Config& self, std::uintptr_t stream) {
        self.cuda_stream = reinterpret_cast<void*>(stream);
      });
}

}  // namespace moelink::python
