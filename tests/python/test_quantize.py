"""Block-scaled FP8 agrees with the same done in plain NumPy."""

import ml_dtypes
import moelink
import numpy as np
import pytest
import torch
from cases import assert_same_bits, dtype_named

FP8 = np.dtype(ml_dtypes.float8_e4m3fn)


def plain_quantize(x: np.ndarray, scale_format: str) -> tuple[np.ndarray, np.ndarray]:
    """Values and float32 scales [T, H / 128]."""
    blocks = x.astype(np.float32).reshape(len(x), x.shape[1] // 128, 128)
    amax = np.maximum(np.abs(blocks).max(axis=2), np.float32(1e-4))
    scales = amax / np.float32(448)
    if scale_format != "float32":
        scales = np.exp2(np.ceil(np.log2(scales.astype(np.float64)))).astype(np.float32)
    values = blocks / scales[:, :, None]
    return np.clip(values, -448, 448).reshape(x.shape), scales


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("scale_format", ["float32", "power_of_two", "ue8m0"])
@pytest.mark.parametrize("shape", [(0, 128), (3, 128), (5, 640), (2, 1024)])
def test_round_trip_is_within_half_a_step(shape, scale_format: str, dtype: str):
    x = (10 * np.random.default_rng(0).standard_normal(shape)).astype(dtype_named(dtype))
    values, scales = moelink.quantize_fp8(x, scale_format)
    assert values.dtype == FP8
    assert values.shape == x.shape
    num_scales = -(-shape[1] // 512) if scale_format == "ue8m0" else shape[1] // 128
    assert scales.shape == (shape[0], num_scales)
    assert scales.dtype == (np.int32 if scale_format == "ue8m0" else np.float32)
    back = moelink.dequantize_fp8(values, scales, np.float32)
    _, plain_scales = plain_quantize(x, scale_format)
    largest_steps = 32 * np.repeat(plain_scales, 128, axis=1)  # values from 256 to 448
    assert (np.abs(back - x.astype(np.float32)) <= 0.501 * largest_steps).all()


@pytest.mark.parametrize("scale_format", ["power_of_two", "ue8m0"])
def test_powers_of_two_agree_with_numpy_bit_for_bit(scale_format: str):
    x = np.random.default_rng(1).standard_normal((7, 512)).astype(np.float32)
    values, scales = moelink.quantize_fp8(x, scale_format)
    plain_values, plain_scales = plain_quantize(x, scale_format)
    assert_same_bits(values, plain_values.astype(FP8), "values")
    if scale_format == "ue8m0":
        plain_scales = (np.log2(plain_scales) + 127).astype(np.uint8).view(np.int32)
    assert_same_bits(scales, plain_scales, "scales")


def test_torch_tensors_come_back_as_torch_tensors():
    x = torch.randn(4, 256).to(torch.bfloat16)
    values, scales = moelink.quantize_fp8(x)
    assert values.dtype is torch.float8_e4m3fn
    assert scales.dtype is torch.float32
    column_major = scales.t().contiguous().t()
    back = moelink.dequantize_fp8(values, column_major, torch.bfloat16)
    assert back.dtype is torch.bfloat16
    assert torch.equal(back, moelink.dequantize_fp8(values, scales, "bfloat16"))


ROWS = np.ones((2, 128), FP8)
SCALES = np.ones((2, 1), np.float32)


@pytest.mark.parametrize(
    ("call", "pattern"),
    [
        (lambda: moelink.quantize_fp8(np.ones((2, 100), np.float32)), "100.*128"),
        (lambda: moelink.quantize_fp8(np.ones((2, 128), np.int32)), "int32"),
        (lambda: moelink.quantize_fp8(np.ones((2, 128))), "x: dtype float64"),
        (lambda: moelink.quantize_fp8(np.ones((2, 128), np.float32), "e8"), "scale_format 'e8'"),
        (lambda: moelink.quantize_fp8([1.0]), "x: a list, expected"),
        (lambda: moelink.dequantize_fp8(ROWS, np.ones((2, 2), np.float32), "float32"), "scales"),
        (lambda: moelink.dequantize_fp8(ROWS, SCALES, "int32"), "int32"),
        (lambda: moelink.dequantize_fp8(ROWS, SCALES, "halfling"), "dtype halfling"),
    ],
)
def test_bad_arguments_are_refused(call, pattern: str):
    with pytest.raises(moelink.Error, match=pattern) as caught:
        call()
    assert caught.value.code is moelink.ErrorCode.INVALID_ARGUMENT
