"""What the calls on a Buffer return."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from moelink._core import Event
from moelink.routing import Routing

__all__ = [
    "CombineResult",
    "DispatchResult",
    "LayoutResult",
    "MemoryStatistics",
    "NetworkStatistics",
]


@dataclass(slots=True)
class LayoutResult:
    """Destinations and counts that follow from a top-k list; E experts, R ranks, T tokens."""

    num_tokens_per_rank: Any
    """int32 [R]: each token counted once per rank."""
    num_tokens_per_node: Any
    """int32 [number of nodes]: each token counted once per node."""
    num_tokens_per_expert: Any
    """int32 [E]: each selection counted."""
    is_token_in_rank: Any
    """bool [T, R]."""


@dataclass(slots=True)
class DispatchResult:
    """Unpacks as ``recv_x, handle = result``."""

    recv_x: Any
    """[rows, H] of the type of x; a pair (values, scales [rows, S]) if x was one."""
    handle: Routing
    """For ``combine`` and for cached dispatches."""
    recv_topk_idx: Any
    """Compact: [rows, K] of the type of topk_idx, the local expert or -1. Otherwise None."""
    recv_topk_weights: Any
    """float32, 0 where there is no selection: compact [rows, K], expert-major [rows]; or None."""
    num_recv_tokens_per_expert: list[int]
    """Rows of each local expert, rounded up to the alignment; empty with num_worst_tokens."""
    event: Event
    """Completion, if the call was asynchronous."""

    def __iter__(self) -> Iterator[Any]:
        yield self.recv_x
        yield self.handle


@dataclass(slots=True)
class CombineResult:
    """Returned by ``combine`` when weights are combined or the call is asynchronous."""

    combined_x: Any
    """[T, H] of the type of x."""
    combined_topk_weights: Any
    """float32 [T, K], or None if no weights were given."""
    event: Event
    """Completion, if the call was asynchronous."""


@dataclass(frozen=True, slots=True)
class MemoryStatistics:
    """Symmetric memory of this rank, in bytes, and how often the quick paths were missed."""

    symmetric_bytes: int
    """Backed by memory now."""
    control_bytes: int
    """Part of it: signals and counts."""
    live_bytes: int
    """Held by tensors now."""
    peak_live_bytes: int
    """Largest ``live_bytes`` so far."""
    capacity_bytes: int
    """Most that this rank may use."""
    num_window_misses: int
    """Dispatches that did not fit the expected window."""
    num_staged_combines: int
    """Combines whose x lay outside symmetric memory."""


@dataclass(frozen=True, slots=True)
class NetworkStatistics:
    """What this rank has sent to other nodes in high-throughput operations so far."""

    num_dispatch_rows: int
    """Tokens, each once per node that it went to; with the path ``"direct"`` once per rank."""
    num_combine_rows: int
    """Sums sent back."""
    num_messages: int
    """In which they travelled."""
    num_bytes: int
    """Of these messages, without their headers."""
