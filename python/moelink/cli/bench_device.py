"""Where a benchmark's tensors are: on the CPU as NumPy arrays, on a GPU as torch tensors."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from moelink.cli.bench_inputs import RankInputs
from moelink.cli.bench_options import BenchOptions

Array = NDArray[Any]

_LEAST_SYMMETRIC_BYTES = 1 << 30


class Device(Protocol):
    """What a rank's benchmark asks of its device."""

    name: str
    """As moelink.Buffer takes it."""
    title: str
    """For people."""

    def put(self, array: Array) -> Any:
        """An array as a tensor here."""

    def cast(self, rows: Any, dtype: np.dtype[Any]) -> Any:
        """``rows``, or a tensor with the same numbers of another type."""

    def copy(self, rows: Any) -> Any:
        """The same in memory that peers cannot reach."""

    def write(self, target: Any, rows: Any) -> None:
        """Copies ``rows`` into ``target``."""

    def timed(self, call: Callable[[], Any]) -> tuple[Any, int]:
        """The result of ``call()`` and the nanoseconds until it was there."""

    def captured(self, call: Callable[[], Any], num_calls: int) -> Callable[[], Any]:
        """``call`` so many times as a CUDA graph, which gives the last result."""

    def symmetric_bytes(self, num_bytes: int) -> int:
        """What a buffer should have that may need so many bytes; 0: what there is."""


class Host:
    name = title = "cpu"

    def put(self, array: Array) -> Any:
        return array

    def cast(self, rows: Any, dtype: np.dtype[Any]) -> Any:
        return rows.astype(dtype, copy=False)

    def copy(self, rows: Any) -> Any:
        return np.array(rows)

    def write(self, target: Any, rows: Any) -> None:
        np.copyto(target, rows)

    def timed(self, call: Callable[[], Any]) -> tuple[Any, int]:
        begin = time.perf_counter_ns()
        result = call()
        return result, time.perf_counter_ns() - begin

    def captured(self, call: Callable[[], Any], num_calls: int) -> Callable[[], Any]:
        raise NotImplementedError("graphs are for GPUs")

    def symmetric_bytes(self, num_bytes: int) -> int:
        del num_bytes
        return 0


class Gpu:
    """The GPU of a rank; ranks take the GPUs in turn."""

    def __init__(self, rank: int, num_ranks: int) -> None:
        import torch

        self._torch = torch
        num_gpus = torch.cuda.device_count()
        index = rank % num_gpus
        torch.cuda.set_device(index)
        self._num_sharing = -(-num_ranks // num_gpus)
        self.name = f"cuda:{index}"
        self.title = f"{self.name} {torch.cuda.get_device_name(index)}"
        self._begin = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)

    def put(self, array: Array) -> Any:
        dtype = getattr(self._torch, array.dtype.name)
        if array.size == 0:
            return self._torch.empty(array.shape, dtype=dtype, device=self.name)
        raw = np.ascontiguousarray(array).view(np.uint8)
        return self._torch.from_numpy(raw).to(self.name).view(dtype)

    def cast(self, rows: Any, dtype: np.dtype[Any]) -> Any:
        return rows.to(getattr(self._torch, dtype.name))

    def copy(self, rows: Any) -> Any:
        return rows.clone()

    def write(self, target: Any, rows: Any) -> None:
        target.copy_(rows)

    def timed(self, call: Callable[[], Any]) -> tuple[Any, int]:
        self._begin.record()
        result = call()
        self._end.record()
        self._end.synchronize()
        return result, round(self._begin.elapsed_time(self._end) * 1e6)

    def captured(self, call: Callable[[], Any], num_calls: int) -> Callable[[], Any]:
        call()
        self._torch.cuda.synchronize()
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph):
            for _ in range(num_calls):
                result = call()

        def replay() -> Any:
            graph.replay()
            return result

        return replay

    def symmetric_bytes(self, num_bytes: int) -> int:
        free, _ = self._torch.cuda.mem_get_info()
        return min(max(num_bytes, _LEAST_SYMMETRIC_BYTES), free // (2 * self._num_sharing))


def device_of(options: BenchOptions, rank: int, num_ranks: int) -> Device:
    return Gpu(rank, num_ranks) if options.backend == "cuda" else Host()


def put_inputs(device: Device, inputs: RankInputs) -> RankInputs:
    """The same inputs as tensors on the device."""
    return replace(
        inputs,
        x=device.put(inputs.x),
        scales=None if inputs.scales is None else device.put(inputs.scales),
        topk_idx=device.put(inputs.topk_idx),
        topk_weights=device.put(inputs.topk_weights),
    )


def to_array(tensor: Any) -> Array:
    """A result as a NumPy array, for comparisons."""
    if not hasattr(tensor, "is_cuda"):
        return np.ascontiguousarray(tensor)
    import torch

    name = str(tensor.dtype).removeprefix("torch.")
    if name.startswith(("bfloat", "float8")):
        import ml_dtypes  # noqa: F401 (registers these types)
    raw = tensor.cpu().contiguous().flatten().view(torch.uint8).numpy()
    return raw.view(np.dtype(name)).reshape(tuple(tensor.shape))
