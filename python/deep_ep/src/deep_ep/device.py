"""The device of buffers, and the current CUDA stream as moelink sees it."""

from __future__ import annotations

import os

import moelink
import torch

__all__ = ["buffer_device", "current_stream", "recorded_event", "symmetric_bytes"]

_LEAST_SYMMETRIC_BYTES = 1 << 30


def buffer_device() -> torch.device:
    """That of the variable ``MOELINK_DEVICE``; else the current GPU; else the CPU."""
    name = os.environ.get("MOELINK_DEVICE", "")
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise ValueError(f"MOELINK_DEVICE is {name!r}, expected cpu, cuda or cuda:N") from None
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def symmetric_bytes(device: torch.device, hint: int) -> int:
    """What a buffer takes at once on a GPU: the hint, which may be small. 0: moelink decides."""
    if device.type == "cpu" or os.environ.get("MOELINK_MAX_SYMMETRIC_BYTES"):
        return 0
    return max(hint, _LEAST_SYMMETRIC_BYTES)


def current_stream() -> int:
    """0 where CUDA is not in use: nothing is made for a question."""
    return torch.cuda.current_stream().cuda_stream if torch.cuda.is_initialized() else 0


def recorded_event() -> moelink.Event:
    """Behind what is enqueued on the current stream now; complete where CUDA is not in use."""
    if not (torch.cuda.is_initialized() and moelink.has_cuda_backend()):
        return moelink.Event()
    return moelink.Event.record(torch.cuda.current_device(), current_stream())
