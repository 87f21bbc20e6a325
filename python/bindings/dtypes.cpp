// Binds the element types.
#include "moelink/dtypes.hpp"

#include "bindings.hpp"

namespace moelink::python {

void bind_dtypes(nb::module_& m) {
  nb::enum_<DType>(m, "DType", "Element type of a tensor.")
      .value("UINT8", DType::kUInt8)
      .value("INT8", DType::kInt8)
      .value("INT32", DType::kInt32)
      .value("INT64", DType::kInt64)
      .value("BOOL", DType::kBool)
      .value("FLOAT16", DType::kFloat16)
      .value("BFLOAT16", DType::kBFloat16)
      .value("FLOAT32", DType::kFloat32)
      .value("FLOAT8_E4M3", DType::kFloat8E4M3)
      .value("FLOAT8_UE8M0", DType::kFloat8UE8M0);
  m.def("dtype_name", &dtype_name, nb::arg("dtype"),
        "Name of an element type, such as 'bfloat16'.");
  m.def("dtype_size", &dtype_size, nb::arg("dtype"), "Size of an element in bytes.");
  m.attr("SCALE_BLOCK") = kScaleBlock;
}

}  // namespace moelink::python
