"""Timing of communication calls."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

_L2_BYTES = 256 << 20


def bench(
    fn: Callable[[], Any],
    num_warmups: int = 50,
    num_tests: int = 50,
    post_fn: Callable[[], Any] | None = None,
    flush_l2: bool = True,
) -> tuple[float, float, float]:
    """(average, least, most) seconds of ``fn``, without the first sample."""
    on_gpu = torch.cuda.is_available()
    cache = (
        torch.empty(_L2_BYTES, dtype=torch.uint8, device="cuda") if on_gpu and flush_l2 else None
    )
    for _ in range(num_warmups):
        fn()
    samples = []
    for _ in range(num_tests):
        if cache is not None:
            cache.zero_()
        samples.append(_time_once(fn, on_gpu))
        if post_fn is not None:
            post_fn()
    samples = samples[1:] or samples
    return sum(samples) / len(samples), min(samples), max(samples)


def _time_once(fn: Callable[[], Any], on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    fn()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def bench_kineto(
    fn: Callable[[], Any],
    kernel_names: str | tuple[str, ...],
    num_tests: int = 30,
    suppress_kineto_output: bool = False,
    trace_path: str | None = None,
    flush_l2: bool = True,
    barrier_comm_profiling: bool = False,
    num_kernels_per_period: int = 1,
    barrier: Callable[[], Any] | None = None,
) -> Any:
    """Seconds per name. Without kernels to tell apart every name gets the time of the call."""
    del suppress_kineto_output, trace_path, num_kernels_per_period
    single = isinstance(kernel_names, str)
    names = (kernel_names,) if isinstance(kernel_names, str) else tuple(kernel_names)
    if int(os.environ.get("EP_USE_NVIDIA_TOOLS", "0")):
        return 1 if single else [1] * len(names)
    aligned = barrier_comm_profiling and not int(
        os.environ.get("EP_DISABLE_BARRIER_PROFILING", "0")
    )
    samples = []
    for _ in range(num_tests + 1):
        if aligned:
            (barrier or dist.barrier)()
        samples.append(bench(fn, 0, 1, None, flush_l2)[0])
    average = sum(samples[1:]) / num_tests
    return average if single else [average] * len(names)
