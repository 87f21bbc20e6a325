"""Inputs that every rank can recompute, in NumPy, and how results on a GPU are compared with them.

NumPy knows no bfloat16: such payloads are int16 here, and FP8 ones uint8.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import moelink
import numpy as np
import torch
from gpu_ranks import DEVICE
from moelink.reference import Sent

LOCAL_EXPERTS = 4
NUM_TOPK = 3
HIDDEN = 256
NUM_TOKENS = (37, 0, 61, 5)
SYMMETRIC_BYTES = 64 << 20

# What stands for a payload in NumPy, and what it is.
STANDS_FOR = {"bfloat16": "int16", "float8_e4m3fn": "uint8"}


@contextmanager
def open_buffer(group: moelink.Group, device: str = DEVICE, **options: Any) -> Iterator[Any]:
    """A buffer for the experts of the cases."""
    options.setdefault("max_symmetric_bytes", SYMMETRIC_BYTES if device != "cpu" else 0)
    experts = group.num_ranks * LOCAL_EXPERTS
    with moelink.Buffer(group, num_experts=experts, device=device, **options) as buffer:
        yield buffer


def sent_by(rank: int, num_ranks: int, dtype: str = "float32", salt: int = 0) -> Sent:
    """Some selections are -1, some tokens name a rank twice, and rank 1 has no tokens."""
    rng = np.random.default_rng((salt, num_ranks, rank))
    shape = (NUM_TOKENS[rank % len(NUM_TOKENS)], NUM_TOPK)
    topk_idx = rng.integers(-1, num_ranks * LOCAL_EXPERTS, shape)
    weights = rng.random(shape, np.float32)
    scales = rng.random((shape[0], HIDDEN // 128), np.float32)
    return Sent(payload(rng, shape[0], dtype), topk_idx, weights, scales)


def payload(rng: np.random.Generator, num_tokens: int, dtype: str) -> np.ndarray:
    """[T, H] of numbers around 1, or of any bits where NumPy lacks the type."""
    shape = (num_tokens, HIDDEN)
    stand_in = STANDS_FOR.get(dtype)
    if stand_in is None:
        return rng.standard_normal(shape, np.float32).astype(dtype)
    limits = np.iinfo(stand_in)
    return rng.integers(limits.min, limits.max, shape, stand_in)


def all_sent(num_ranks: int, dtype: str = "float32", salt: int = 0) -> list[Sent]:
    return [sent_by(rank, num_ranks, dtype, salt) for rank in range(num_ranks)]


def on_gpu(array: np.ndarray, dtype: str | None = None) -> torch.Tensor:
    """``dtype``: what the array stands for."""
    tensor = torch.from_numpy(array).to(DEVICE)
    return tensor if dtype is None else tensor.view(getattr(torch, dtype))


def bits_of(tensor: torch.Tensor) -> bytes:
    if tensor.numel() == 0:
        return b""
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def assert_same(actual: Any, expected: Any, what: str) -> None:
    """A tensor on a GPU has the shape and the bits of an array, or both are absent."""
    if expected is None or actual is None:
        assert actual is None and expected is None, f"{what}: {actual}, expected {expected}"
        return
    assert actual.device.type == DEVICE, f"{what}: on {actual.device}"
    shape = tuple(actual.shape)
    assert shape == expected.shape, f"{what}: shape {shape}, expected {expected.shape}"
    same = bits_of(actual) == np.ascontiguousarray(expected).tobytes()
    assert same, f"{what}: {actual.cpu()}, expected {expected}"


def as_bfloat16(sums: np.ndarray) -> torch.Tensor:
    """float32 sums rounded once to nearest even, on the CPU."""
    return torch.from_numpy(sums).bfloat16()
