// Binds the block-scaled FP8 conversions.
#include "moelink/quantize.hpp"

#include "bindings.hpp"
#include "interpreter.hpp"

namespace moelink::python {

void bind_quantize(nb::module_& m) {
  nb::enum_<ScaleFormat>(m, "ScaleFormat", "How the scale of a block of 128 channels is stored.")
      .value("FLOAT32", ScaleFormat::kFloat32)
      .value("POWER_OF_TWO", ScaleFormat::kPowerOfTwo)
      .value("PACKED_UE8M0", ScaleFormat::kPackedUE8M0);
  nb::class_<QuantizedRows>(m, "QuantizedRows")
      .def_prop_ro("values", [](const QuantizedRows& self) { return self.values; })
      .def_prop_ro("scales", [](const QuantizedRows& self) { return self.scales; });
  m.def("quantize_fp8", &quantize_fp8, nb::arg("x"), nb::arg("format"),
        nb::call_guard<ReleasedGil>());
  m.def("dequantize_fp8", &dequantize_fp8, nb::arg("values"), nb::arg("scales"), nb::arg("dtype"),
        nb::call_guard<ReleasedGil>());
}

}  // namespace moelink::python
