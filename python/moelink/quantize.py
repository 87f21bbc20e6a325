"""Block-scaled FP8: a float8_e4m3fn per channel and a scale per 128 channels."""

from __future__ import annotations

from typing import Any

from moelink import _core
from moelink._tensors import library_and_dtype, library_of, view_like
from moelink.errors import invalid_argument

__all__ = ["dequantize_fp8", "quantize_fp8"]

_FORMATS = {
    "float32": _core.ScaleFormat.FLOAT32,
    "power_of_two": _core.ScaleFormat.POWER_OF_TWO,
    "ue8m0": _core.ScaleFormat.PACKED_UE8M0,
}


def quantize_fp8(x: Any, scale_format: str = "float32") -> tuple[Any, Any]:
    """Quantises ``x``, [T, H] of bfloat16, float16 or float32, H a multiple of 128.

    Per block of 128 channels: amax = max(1e-4, max|x|), scale = amax / 448, and the values are
    saturated and rounded to nearest even. ``scale_format``:

    * ``"float32"``: scales float32 [T, H / 128];
    * ``"power_of_two"``: the same, rounded up to a power of two;
    * ``"ue8m0"``: those as exponent bytes, four per int32, first block in the low byte:
      int32 [T, ceil(H / 512)].

    Returns (values float8_e4m3fn [T, H], scales), as ``Buffer.dispatch`` takes them.
    """
    if scale_format not in _FORMATS:
        expected = ", ".join(repr(name) for name in _FORMATS)
        raise invalid_argument(
            f"quantize_fp8: scale_format {scale_format!r}, expected one of {expected}"
        )
    library = library_of(x, "quantize_fp8: x")
    view = library.view(x, "quantize_fp8: x")
    rows = _core.quantize_fp8(view, _FORMATS[scale_format])
    return library.wrap(rows.values), library.wrap(rows.scales)


def dequantize_fp8(values: Any, scales: Any, dtype: Any) -> Any:
    """The inverse of :func:`quantize_fp8` up to rounding.

    ``values``: float8_e4m3fn [T, H]; ``scales``: float32 or int32 (packed UE8M0), any strides;
    ``dtype``: bfloat16, float16 or float32 (NumPy's, torch's, or its name).
    """
    library = library_of(values, "dequantize_fp8: values")
    values_view = library.view(values, "dequantize_fp8: values")
    scales_view = view_like(library, scales, "dequantize_fp8: scales")
    _, core_dtype = library_and_dtype(dtype, values, "dequantize_fp8: dtype")
    return library.wrap(_core.dequantize_fp8(values_view, scales_view, core_dtype))
