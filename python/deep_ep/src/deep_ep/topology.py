"""Groups and nodes: who takes part, and how the ranks are split into nodes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import moelink

from deep_ep.config import RANKS_PER_NODE

__all__ = ["Topology", "get_logical_domain_size", "get_physical_domain_size", "open_group"]


@dataclass(frozen=True)
class Topology:
    """Node = rank // ranks_per_node."""

    rank: int
    num_ranks: int
    num_nodes: int

    @property
    def ranks_per_node(self) -> int:
        return self.num_ranks // self.num_nodes

    @property
    def is_internode(self) -> bool:
        return self.num_nodes > 1


def open_group(group: Any, comm: Any, num_nodes: int) -> moelink.Group:
    """The moelink group of a process group, a communicator or a moelink.Group. Collective."""
    members = comm if group is None else group
    if members is None:
        raise ValueError("Buffer: group and comm are None, expected one of them")
    if isinstance(members, moelink.Group):
        return moelink.Group.of(members, num_nodes=num_nodes)
    return moelink.Group.of(members, _timeout(), num_nodes or _num_nodes(_size_of(members)))


def buffer_timeout() -> float | None:
    """Seconds of ``MOELINK_TIMEOUT_MS``; None: the group's."""
    return _timeout()


def _timeout() -> float | None:
    text = os.environ.get("MOELINK_TIMEOUT_MS")
    return int(text) / 1000 if text else None


def _size_of(members: Any) -> int:
    return members.size() if hasattr(members, "size") else members.Get_size()


def _num_nodes(num_ranks: int) -> int:
    text = os.environ.get("MOELINK_NODES")
    if text:
        return int(text)
    if num_ranks <= RANKS_PER_NODE:
        return 1
    if num_ranks % RANKS_PER_NODE:
        raise ValueError(
            f"Buffer: {num_ranks} ranks, expected at most {RANKS_PER_NODE}, a multiple of it, or "
            "num_nodes"
        )
    return num_ranks // RANKS_PER_NODE


def get_physical_domain_size(group: Any) -> tuple[int, int]:
    """(number of nodes, ranks per node)."""
    if isinstance(group, moelink.Group):
        return group.num_nodes, group.num_ranks // group.num_nodes
    num_ranks = _size_of(group)
    num_nodes = _num_nodes(num_ranks)
    return num_nodes, num_ranks // num_nodes


def get_logical_domain_size(group: Any, allow_hybrid_mode: bool = True) -> tuple[int, int]:
    """The same, or (1, number of ranks) where all ranks are reached directly."""
    num_nodes, ranks_per_node = get_physical_domain_size(group)
    return (num_nodes, ranks_per_node) if allow_hybrid_mode else (1, num_nodes * ranks_per_node)
