// The quick way between Moelink and tensor libraries that offer DLPack's table of C functions, as
// torch does since 2.10. Where it does not serve, callers go through Python, which also knows what
// is wrong with a tensor.
#pragma once

#include <nanobind/nanobind.h>

#include <array>
#include <cstddef>
#include <optional>

#include "moelink/config.hpp"
#include "moelink/types.hpp"

namespace moelink::python {

namespace nb = nanobind;

// At most as many tensors as one call has.
inline constexpr std::size_t kNumCallTensors = 5;
using CallViews = std::array<std::optional<TensorView>, kNumCallTensors>;

// Views of `tensors`, which may hold None but not at first. Absent unless all are tensors on
// `device`, of one class with such a table and of types that Moelink knows.
std::optional<CallViews> exchange_views(const nb::tuple& tensors, const Device& device);

// A tensor of the class of `like` over the memory of `tensor`, which is on `device`; None if the
// class has no such table. Nothing is waited for: its values are there in the order of the stream
// of the call that returned it.
nb::object exchange_tensor(const Tensor& tensor, nb::handle like, const Device& device);

}  // namespace moelink::python
