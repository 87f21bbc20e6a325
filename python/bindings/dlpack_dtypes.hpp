// Element types as DLPack numbers them.
#pragma once

#include <nanobind/ndarray.h>

#include <optional>

#include "moelink/dtypes.hpp"

namespace moelink::python {

// 8-bit floats become bytes: few consumers know their codes.
nanobind::dlpack::dtype dlpack_type(DType dtype);

// Absent for types that Moelink does not know.
std::optional<DType> dtype_of(const nanobind::dlpack::dtype& type);

}  // namespace moelink::python
