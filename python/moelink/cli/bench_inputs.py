"""Inputs of a benchmark: a pure function of the options and the rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelink.cli.bench_options import SCALE_BLOCK, BenchOptions

Array = NDArray[Any]


@dataclass(frozen=True)
class RankInputs:
    """What one rank brings: its tokens and where they go."""

    x: Array  # [T, H]
    scales: Array | None  # float32 [T, H / 128] for fp8 and int8
    topk_idx: Array  # int64 [T, K], distinct experts per token
    topk_weights: Array  # float32 [T, K]

    @property
    def payload(self) -> Any:
        """`x` as dispatch takes it: an array, or a pair with scales."""
        return self.x if self.scales is None else (self.x, self.scales)


def make_inputs(options: BenchOptions, rank: int) -> RankInputs:
    random = np.random.default_rng([options.seed, rank])
    scores = random.random((options.tokens, options.experts), dtype=np.float32)
    topk_idx = np.argsort(-scores, axis=1)[:, : options.topk].astype(np.int64)
    topk_weights = random.random((options.tokens, options.topk), dtype=np.float32)
    x, scales = _make_rows(options, random)
    return RankInputs(x, scales, np.ascontiguousarray(topk_idx), topk_weights)


def combine_dtype(options: BenchOptions) -> np.dtype[Any]:
    """Element type of what the experts return: sums need a floating type of 16 bits or more."""
    return numpy_dtype("bf16" if options.dtype in ("fp8", "int8") else options.dtype)


def numpy_dtype(name: str) -> np.dtype[Any]:
    """NumPy's type for a `--dtype` value; needs ml_dtypes for those that NumPy lacks."""
    plain = {"fp16": np.float16, "fp32": np.float32, "int8": np.int8}
    if name in plain:
        return np.dtype(plain[name])
    import ml_dtypes

    return np.dtype({"bf16": ml_dtypes.bfloat16, "fp8": ml_dtypes.float8_e4m3fn}[name])


def _make_rows(options: BenchOptions, random: np.random.Generator) -> tuple[Array, Array | None]:
    shape = (options.tokens, options.hidden)
    if options.dtype == "int8":
        x = random.integers(-127, 128, shape, dtype=np.int8)
        scales = random.random((options.tokens, options.hidden // SCALE_BLOCK), dtype=np.float32)
        return x, scales
    values = random.standard_normal(shape, dtype=np.float32)
    if options.dtype == "fp8":
        import moelink

        quantized, scales = moelink.quantize_fp8(values)
        return quantized, scales
    return values.astype(numpy_dtype(options.dtype)), None
