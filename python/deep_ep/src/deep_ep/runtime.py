"""Runtime: what `Buffer.runtime` answers about the topology and the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from deep_ep.topology import Topology

__all__ = ["Runtime"]


class Runtime:
    """Belongs to one Buffer."""

    def __init__(
        self,
        topology: Topology,
        device: torch.device,
        is_open: Callable[[], bool],
        destroy: Callable[[], None],
    ) -> None:
        self._topology = topology
        self._device = device
        self._is_open = is_open
        self._destroy = destroy

    def is_available(self) -> bool:
        """Whether the buffer can be used."""
        return self._is_open()

    def get_num_rdma_ranks(self) -> int:
        """Number of nodes."""
        return self._topology.num_nodes

    def get_rdma_rank(self) -> int:
        """Node of this rank."""
        return self._topology.rank // self._topology.ranks_per_node

    def get_root_rdma_rank(self, is_global: bool) -> int:
        """Rank that starts the connections between nodes: global, or the same on each node."""
        return self._topology.rank % self._topology.ranks_per_node if is_global else 0

    def get_local_device_id(self) -> int:
        """Number of the buffer's GPU, or 0 without one."""
        return self._device.index or 0

    def get_comm_stream(self) -> Any:
        """The current stream, which calls that finish at once run on."""
        if self._device.type == "cuda":
            return torch.cuda.current_stream(self._device)
        return torch.cpu.current_stream()

    def destroy(self) -> None:
        """As ``Buffer.destroy``."""
        self._destroy()
