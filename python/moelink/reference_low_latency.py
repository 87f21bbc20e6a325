"""Plain NumPy reference of the low latency calls, over all ranks at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelink.quantize import quantize_fp8

__all__ = ["Call", "Received", "Sent", "combine", "dispatch"]

Array = NDArray[Any]
_NO_EXPERT = -1


@dataclass(frozen=True)
class Sent:
    """What one rank gives to dispatch."""

    x: Array  # bfloat16 [T, H]
    topk_idx: Array  # [T, K]
    topk_weights: Array  # float32 [T, K]


@dataclass(frozen=True)
class Call:
    """What all ranks agree on. ``is_cut[a, b]``: ranks a and b mask each other; None: nobody."""

    num_experts: int
    num_max_tokens_per_rank: int
    fp8: str | None = None
    layout: str = "per_expert"
    is_cut: Array | None = None


@dataclass
class Received:
    """What one rank gets: G groups (local experts or source ranks) of N rows; unused ones are 0."""

    x: Array  # [G, N, H]
    scales: Array | None  # [G, N, H / 128], or int32 [G, N, H / 512]
    count: Array  # int32 [G], rows in use
    src_info: Array  # int32 [G, N], token at the source rank
    src_rank: Array  # int32 [G, N]
    src_k: Array  # int32 [G, N], position in the token's list; per rank: the first one here
    layout_range: Array  # int64 [G, R], rows of a source + (the first of them << 32)
    topk_idx: Array | None  # per rank only: int32 [R, M, K], local id or -1
    topk_weights: Array | None  # per rank only: float32 [R, M, K], 0 where the id is -1

    def rows(self) -> Array:
        """Pairs (group, row) of the rows in use."""
        return np.argwhere(np.arange(self.src_info.shape[1]) < self.count[:, None])


def dispatch(sent: Sequence[Sent], call: Call) -> list[Received]:
    """Groups filled in the order of (source rank, token, position in the list)."""
    payloads = [_payload(one.x, call.fp8) for one in sent]
    return [_receive(rank, sent, payloads, call) for rank in range(len(sent))]


def combine(
    returned: Sequence[Array],
    received: Sequence[Received],
    sent: Sequence[Sent],
    call: Call,
    numerics: str = "exact",
) -> list[Array]:
    """``returned``: per rank bfloat16, shaped as its received x. Returns [T, H] per rank."""
    combined = []
    for owner, mine in enumerate(sent):
        num_tokens, num_topk = mine.topk_idx.shape
        rows = np.zeros((num_tokens, num_topk, mine.x.shape[1]), np.float32)
        holder = np.full((num_tokens, num_topk), -1)  # rank that returned the row
        for rank, (values, theirs) in enumerate(zip(returned, received, strict=True)):
            for group, row in theirs.rows():
                if theirs.src_rank[group, row] != owner:
                    continue
                slot = theirs.src_info[group, row], theirs.src_k[group, row]
                rows[slot], holder[slot] = values[group, row], rank
        combined.append(_sum(rows, holder, mine, call, numerics).astype(mine.x.dtype))
    return combined


def _payload(x: Array, fp8: str | None) -> tuple[Array, Array | None]:
    return (x, None) if fp8 is None else quantize_fp8(x, fp8)


def _receive(
    rank: int, sent: Sequence[Sent], payloads: Sequence[tuple[Array, Array | None]], call: Call
) -> Received:
    received = _empty(sent, payloads, call)
    for source, one in enumerate(sent):
        if call.is_cut is not None and call.is_cut[rank, source]:
            continue
        local = _local_ids(one.topk_idx, rank, call.num_experts // len(sent))
        for token in range(len(local)):
            positions = np.flatnonzero(local[token] != _NO_EXPERT)
            if call.layout == "per_rank":
                positions = positions[:1]
            for k in positions:
                group = source if call.layout == "per_rank" else local[token, k]
                row = _append(received, group, (source, token, int(k)), payloads[source])
                if received.topk_idx is None or received.topk_weights is None:
                    continue
                received.topk_idx[group, row] = local[token]
                here = local[token] != _NO_EXPERT
                received.topk_weights[group, row] = np.where(here, one.topk_weights[token], 0)
    _fill_ranges(received)
    return received


def _empty(
    sent: Sequence[Sent], payloads: Sequence[tuple[Array, Array | None]], call: Call
) -> Received:
    num_ranks, max_tokens = len(sent), call.num_max_tokens_per_rank
    values, scales = payloads[0]
    per_rank = call.layout == "per_rank"
    shape = (num_ranks, max_tokens)
    if not per_rank:
        shape = (call.num_experts // num_ranks, num_ranks * max_tokens)
    by_position = (*shape, sent[0].topk_idx.shape[1])
    return Received(
        x=np.zeros((*shape, values.shape[1]), values.dtype),
        scales=None if scales is None else np.zeros((*shape, scales.shape[1]), scales.dtype),
        count=np.zeros(shape[0], np.int32),
        src_info=np.zeros(shape, np.int32),
        src_rank=np.zeros(shape, np.int32),
        src_k=np.zeros(shape, np.int32),
        layout_range=np.zeros((shape[0], num_ranks), np.int64),
        topk_idx=np.full(by_position, _NO_EXPERT, np.int32) if per_rank else None,
        topk_weights=np.zeros(by_position, np.float32) if per_rank else None,
    )


def _append(
    received: Received,
    group: int,
    origin: tuple[int, int, int],
    payload: tuple[Array, Array | None],
) -> int:
    """The row of the group that now holds the token of the origin (source rank, token, k)."""
    source, token, k = origin
    values, scales = payload
    row = int(received.count[group])
    received.count[group] += 1
    received.x[group, row] = values[token]
    if received.scales is not None and scales is not None:
        received.scales[group, row] = scales[token]
    received.src_rank[group, row] = source
    received.src_info[group, row] = token
    received.src_k[group, row] = k
    return row


def _fill_ranges(received: Received) -> None:
    num_groups, num_ranks = received.layout_range.shape
    for group in range(num_groups):
        sources = received.src_rank[group, : received.count[group]]
        counts = np.bincount(sources, minlength=num_ranks).astype(np.int64)
        begins = np.cumsum(counts) - counts
        received.layout_range[group] = counts + (begins << 32)


def _local_ids(topk_idx: Array, rank: int, num_local: int) -> Array:
    here = (topk_idx >= 0) & (topk_idx // num_local == rank)
    return np.where(here, topk_idx - rank * num_local, _NO_EXPERT)


def _sum(rows: Array, holder: Array, mine: Sent, call: Call, numerics: str) -> Array:
    """float32 [T, H]; products and sums are rounded one by one."""
    weights = mine.topk_weights[:, :, None]
    if call.layout == "per_rank":
        return _sum_by_rank(rows, holder, None, mine.x.dtype)
    if numerics == "pre_reduced":
        return _sum_by_rank(rows, holder, weights, mine.x.dtype)
    return _sum_positions(rows * weights, holder >= 0)


def _sum_by_rank(rows: Array, holder: Array, weights: Array | None, dtype: Any) -> Array:
    """Each rank's sum is rounded to the element type; these are added, ranks ascending."""
    total = np.zeros((len(rows), rows.shape[2]), np.float32)
    terms = rows if weights is None else rows * weights
    for rank in range(int(holder.max(initial=-1)) + 1):
        is_here = holder == rank
        partial = _sum_positions(terms, is_here).astype(dtype).astype(np.float32)
        total = np.where(is_here.any(axis=1)[:, None], total + partial, total)
    return total


def _sum_positions(terms: Array, is_used: Array) -> Array:
    """Positions of the list ascending, from 0."""
    total = np.zeros((len(terms), terms.shape[2]), np.float32)
    for k in range(terms.shape[1]):
        total = np.where(is_used[:, k, None], total + terms[:, k], total)
    return total
