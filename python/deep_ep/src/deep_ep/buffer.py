"""Buffer: the class that users of DeepEP know, on top of moelink.Buffer."""

from __future__ import annotations

import os
import warnings
from typing import Any

import moelink
import numpy as np
import torch

from deep_ep.config import Config, default_combine_config, default_dispatch_config
from deep_ep.device import buffer_device, symmetric_bytes
from deep_ep.high_throughput import HighThroughputCalls
from deep_ep.keywords import check_keywords
from deep_ep.low_latency import LowLatencyCalls, low_latency_size_hint
from deep_ep.runtime import Runtime
from deep_ep.topology import Topology, buffer_timeout, open_group
from deep_ep.utils.event import EventHandle, EventOverlap

__all__ = ["Buffer"]

_ALIGNMENT = 128


class Buffer(HighThroughputCalls, LowLatencyCalls):
    """One rank's end of the exchange. Construction and ``destroy`` are collective.

    * ``group``: a torch process group of any backend that can all-gather objects, or a
      moelink.Group; None: ``comm``, an mpi4py communicator.
    * ``num_nvl_bytes``, ``num_rdma_bytes``: kept as attributes. On a GPU their sum, at least 1 GiB,
      is taken as symmetric memory, unless ``MOELINK_MAX_SYMMETRIC_BYTES`` says how much; on the CPU
      memory grows with what calls need.
    * ``low_latency_mode``: allows the ``low_latency_`` calls, besides the normal ones.
    * ``enable_shrink``: a lost rank is masked with a warning, and the others go on.
    * ``hidden_bytes``, ``num_experts``: of the simple form, see ``dispatch``.
    * ``num_nodes``: splits the group into emulated nodes. 0: ``MOELINK_NODES``, or 8 ranks each.
    * The other arguments are hints. ``MOELINK_TIMEOUT_MS`` limits every wait for a peer.

    Tensors are on the device that ``MOELINK_DEVICE`` names (cpu, cuda, cuda:1), else on the current
    GPU, else on the CPU.
    """

    num_sms: int = 20

    def __init__(
        self,
        group: Any = None,
        num_nvl_bytes: int = 0,
        num_rdma_bytes: int = 0,
        low_latency_mode: bool = False,
        num_qps_per_rank: int = 24,
        allow_nvlink_for_low_latency_mode: bool = True,
        allow_mnnvl: bool = False,
        explicitly_destroy: bool = False,
        enable_shrink: bool = False,
        comm: Any = None,
        *,
        hidden_bytes: int = 0,
        num_experts: int | None = None,
        num_nodes: int = 0,
        **keywords: Any,
    ) -> None:
        del num_qps_per_rank, allow_nvlink_for_low_latency_mode, allow_mnnvl
        if group is None and comm is None and hasattr(enable_shrink, "Get_rank"):
            comm, enable_shrink = enable_shrink, False  # version 1 had comm in this place
        _check_sizes({"num_nvl_bytes": num_nvl_bytes, "num_rdma_bytes": num_rdma_bytes})
        members = open_group(group, comm, num_nodes)
        self._topology = Topology(members.rank, members.num_ranks, members.num_nodes)
        check_keywords("Buffer", keywords, members.rank, self._topology.is_internode)
        self.group = comm if group is None else group
        self.rank = members.rank
        self.group_size = members.num_ranks
        self.num_nvl_bytes = num_nvl_bytes
        self.num_rdma_bytes = num_rdma_bytes
        self.low_latency_mode = bool(low_latency_mode)
        self.explicitly_destroy = bool(explicitly_destroy)
        self.enable_shrink = bool(enable_shrink)
        if self.low_latency_mode or self._topology.is_internode:
            self.nvshmem_qp_depth = int(os.environ.get("NVSHMEM_QP_DEPTH", "1024"))
        device = buffer_device()
        self._device = device
        options: dict[str, Any] = {"survival": "mask"} if enable_shrink else {}
        options["max_symmetric_bytes"] = symmetric_bytes(device, num_nvl_bytes + num_rdma_bytes)
        self._buffer = moelink.Buffer(
            members,
            hidden_bytes,
            num_experts=num_experts,
            timeout=buffer_timeout(),
            device=device,
            **options,
        )
        self._num_low_latency_calls = 0
        self._zero_copy_call: int | None = None
        self._local_bytes: dict[bool, torch.Tensor] = {}
        self._is_open = True
        self.runtime = Runtime(self._topology, device, lambda: self._is_open, self.destroy)
        self._print_sizes()

    def destroy(self) -> None:
        """Waits for the other ranks, then releases the memory; safe to call again.

        A peer that died or does not come costs a warning, not an error.
        """
        if not self._is_open:
            return
        self._is_open = False
        self._local_bytes.clear()
        try:
            self._buffer.close()
        except moelink.Error as error:
            self._buffer.__exit__(type(error), error, None)  # releases without waiting
            warnings.warn(f"destroy (rank {self.rank}): not all ranks: {error}", stacklevel=2)

    @staticmethod
    def is_sm90_compiled() -> bool:
        """Whether FP8 and the low latency mode are there."""
        return True

    @staticmethod
    def set_num_sms(new_num_sms: int) -> None:
        """Number of multiprocessors that the normal mode may use: even."""
        if new_num_sms < 0 or new_num_sms % 2:
            raise ValueError(f"set_num_sms: {new_num_sms}, expected an even number >= 0")
        Buffer.num_sms = new_num_sms

    @staticmethod
    def capture() -> EventOverlap:
        """An event recorded on the current stream now."""
        return EventOverlap(EventHandle())

    @staticmethod
    def get_dispatch_config(num_ranks: int) -> Config:
        """The default of ``dispatch``."""
        return default_dispatch_config(num_ranks, Buffer.num_sms)

    @staticmethod
    def get_combine_config(num_ranks: int) -> Config:
        """The default of ``combine``."""
        return default_combine_config(num_ranks, Buffer.num_sms)

    @staticmethod
    def get_low_latency_rdma_size_hint(
        num_max_dispatch_tokens_per_rank: int, hidden: int, num_ranks: int, num_experts: int
    ) -> int:
        """Bytes to pass as ``num_rdma_bytes``."""
        return low_latency_size_hint(
            num_max_dispatch_tokens_per_rank, hidden, num_ranks, num_experts
        )

    def get_comm_stream(self) -> Any:
        """The current stream: calls run on it, asynchronous ones beside it."""
        return self.runtime.get_comm_stream()

    def get_local_buffer_tensor(
        self,
        dtype: torch.dtype,
        size: torch.Size | None = None,
        offset: int = 0,
        use_rdma_buffer: bool = False,
    ) -> torch.Tensor:
        """``num_rdma_bytes`` or ``num_nvl_bytes`` of private memory, from byte ``offset`` on.

        Zero at first. Clipped to the end; ``size``: the first elements, in this shape. The calls do
        not use it, so writing to it is harmless.
        """
        where = f"get_local_buffer_tensor (rank {self.rank})"
        self._open("get_local_buffer_tensor")
        raw = self._raw_bytes(bool(use_rdma_buffer))
        if not 0 <= offset <= raw.numel() or offset % dtype.itemsize:
            raise ValueError(
                f"{where}: offset {offset}, expected a multiple of {dtype.itemsize} from 0 to "
                f"{raw.numel()} bytes"
            )
        num_elements = (raw.numel() - offset) // dtype.itemsize
        tensor = raw[offset : offset + num_elements * dtype.itemsize].view(dtype)
        if size is None:
            return tensor
        wanted = torch.Size(size)
        if wanted.numel() > num_elements:
            raise ValueError(
                f"{where}: size {list(wanted)} is {wanted.numel()} elements, expected at most "
                f"{num_elements}"
            )
        return tensor[: wanted.numel()].view(wanted)

    def _raw_bytes(self, use_rdma_buffer: bool) -> torch.Tensor:
        if use_rdma_buffer not in self._local_bytes:
            num_bytes = self.num_rdma_bytes if use_rdma_buffer else self.num_nvl_bytes
            if self._device.type == "cuda":
                raw = torch.zeros(num_bytes, dtype=torch.uint8, device=self._device)
            else:  # NumPy's zeros take no memory until they are written
                raw = torch.from_numpy(np.zeros(num_bytes, np.uint8))
            self._local_bytes[use_rdma_buffer] = raw
        return self._local_bytes[use_rdma_buffer]

    def _open(self, operation: str) -> moelink.Buffer:
        if not self._is_open:
            raise RuntimeError(f"{operation} (rank {self.rank}): the Buffer was destroyed")
        return self._buffer

    def _print_sizes(self) -> None:
        if int(os.environ.get("EP_BUFFER_DEBUG", "0")):
            print(
                f"deep_ep.Buffer rank {self.rank} of {self.group_size}, "
                f"{self._topology.num_nodes} node(s): {self.num_nvl_bytes} NVLink bytes, "
                f"{self.num_rdma_bytes} RDMA bytes, {self.num_sms} SMs",
                flush=True,
            )


def _check_sizes(sizes: dict[str, int]) -> None:
    for name, value in sizes.items():
        if value < 0 or value % _ALIGNMENT:
            raise ValueError(f"Buffer: {name} {value}, expected a multiple of {_ALIGNMENT}, >= 0")
