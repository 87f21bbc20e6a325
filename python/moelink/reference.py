"""Plain NumPy reference of dispatch and combine, over all ranks at once.

It is slow, obvious and the arbiter: the backends must agree with it bit for bit. Every list here is
indexed by rank. Symbols: T tokens of a rank, H channels, K = top-k, E experts, R ranks, L = E / R,
N tokens received. Expert e lives on rank e // L. Payloads may have any dtype; ``combine`` needs a
dtype that converts to float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "Layout",
    "Received",
    "Sent",
    "combine",
    "combine_weights",
    "destinations",
    "dispatch",
    "dispatch_cached",
    "query_layout",
]

Array = np.ndarray[Any, Any]


@dataclass
class Sent:
    """What one rank gives to a dispatch."""

    x: Array
    """[T, H]"""
    topk_idx: Array | None = None
    """int [T, K], -1 = no selection"""
    topk_weights: Array | None = None
    """float32 [T, K]"""
    scales: Array | None = None
    """[T, S]"""
    is_token_in_rank: Array | None = None
    """bool [T, R]: overrides the destinations"""


@dataclass
class Layout:
    """What one rank's top-k list implies."""

    num_tokens_per_rank: Array
    num_tokens_per_node: Array
    num_tokens_per_expert: Array
    is_token_in_rank: Array


@dataclass
class Received:
    """What one rank gets from a dispatch, and the handle's contents."""

    x: Array
    scales: Array | None
    topk_idx: Array | None
    topk_weights: Array | None
    num_tokens_per_expert: list[int]
    """rounded up to the alignment"""
    is_filled: Array
    """bool [rows]: False in padding and in unused tails"""
    src_rank: Array
    """int32 [N], compact order"""
    src_token: Array
    """int32 [N], compact order"""
    is_token_in_rank: Array
    """bool [T, R] of this rank's own tokens"""
    rank_prefix_matrix: Array
    """int32 [R, R]: tokens sent to rank j by ranks 0 to i"""
    tokens_per_expert: Array
    """int32 [L], unaligned"""
    local_topk_idx: Array | None
    """int [N, K]: local expert or -1, compact order"""
    expert_row: Array | None
    """int32 [N, K]: row of selection k of compact row n, or -1; expert-major layout only"""


def destinations(topk_idx: Array, num_ranks: int, num_experts: int) -> Array:
    """bool [T, R]: the ranks that hold an expert of the token."""
    experts_per_rank = num_experts // num_ranks
    is_token_in_rank = np.zeros((len(topk_idx), num_ranks), bool)
    for token, experts in enumerate(topk_idx):
        for expert in experts[experts >= 0]:
            is_token_in_rank[token, expert // experts_per_rank] = True
    return is_token_in_rank


def query_layout(topk_idx: Array, num_ranks: int, num_experts: int, num_nodes: int = 1) -> Layout:
    """Destinations and counts of one rank's tokens."""
    in_rank = destinations(topk_idx, num_ranks, num_experts)
    in_node = in_rank.reshape(-1, num_nodes, num_ranks // num_nodes).any(axis=2)
    per_expert = np.bincount(topk_idx[topk_idx >= 0], minlength=num_experts)
    return Layout(
        in_rank.sum(axis=0, dtype=np.int32),
        in_node.sum(axis=0, dtype=np.int32),
        per_expert.astype(np.int32),
        in_rank,
    )


def dispatch(
    sent: Sequence[Sent],
    num_experts: int,
    layout: str = "compact",
    expert_alignment: int = 1,
    num_worst_tokens: int = 0,
) -> list[Received]:
    """Dispatch of all ranks. Padding and unused rows have payload 0, weight 0 and topk_idx -1."""
    num_ranks = len(sent)
    in_rank = [_destinations_of(rank_sent, num_ranks, num_experts) for rank_sent in sent]
    num_sent = np.array([mask.sum(axis=0) for mask in in_rank], np.int32)
    prefix = np.cumsum(num_sent, axis=0, dtype=np.int32)
    received = []
    for rank in range(num_ranks):
        handle = _receive_compact(sent, in_rank, rank, num_experts // num_ranks)
        handle.rank_prefix_matrix = prefix
        aligned = -(-handle.tokens_per_expert // expert_alignment) * expert_alignment
        if layout == "expert_major":
            _expand(handle, aligned)
        if num_worst_tokens:
            _resize(handle, num_worst_tokens)
        handle.num_tokens_per_expert = [] if num_worst_tokens else aligned.tolist()
        received.append(handle)
    return received


def dispatch_cached(sent: Sequence[Sent], handles: Sequence[Received]) -> list[Received]:
    """Dispatch of other data with the placement of an earlier dispatch."""
    received = []
    for handle in handles:
        fresh = Received(**vars(handle))
        weights = _collect(sent, handle, "topk_weights")
        if weights is not None and handle.local_topk_idx is not None:
            weights = np.where(handle.local_topk_idx >= 0, weights, np.float32(0))
        fresh.x = _place(handle, _collect(sent, handle, "x"))
        scales = _collect(sent, handle, "scales")
        fresh.scales = None if scales is None else _place(handle, scales)
        fresh.topk_weights = None if weights is None else _place_weights(handle, weights)
        received.append(fresh)
    return received


def combine(
    x: Sequence[Array],
    handles: Sequence[Received],
    biases: Sequence[Sequence[Array]] | None = None,
    num_nodes: int = 1,
) -> list[Array]:
    """Sums the returned rows of every token: [T, H] per rank, of the dtype of x.

    float32, starting from bias_0 + bias_1, ranks ascending, rounded once. The rows of one rank
    (expert-major) are first summed for k ascending and rounded; with several nodes, so are the
    ranks of a node.
    """
    combined = []
    for source, handle in enumerate(handles):
        dtype = x[source].dtype
        shape = (len(handle.is_token_in_rank), x[source].shape[1])
        total = _start(shape, [] if biases is None else biases[source])
        ranks = np.arange(len(handles)).reshape(num_nodes, -1)
        for node_ranks in ranks:
            partial = total if num_nodes == 1 else np.zeros(shape, np.float32)
            for rank in node_ranks:
                tokens, rows = _rows_of(handles, source, rank)
                partial[tokens] += _rank_sum(x[rank], handles[rank], rows)
            if num_nodes > 1:
                sent_there: Array = handle.is_token_in_rank[:, node_ranks].max(axis=1)
                total[sent_there] += partial.astype(dtype).astype(np.float32)[sent_there]
        combined.append(total.astype(dtype))
    return combined


def combine_weights(
    weights: Sequence[Array],
    handles: Sequence[Received],
    topk_idx: Sequence[Array],
    num_nodes: int = 1,
) -> list[Array]:
    """float32 [T, K] per rank: compact, the sum over the ranks of each node ascending, then over
    the nodes; expert-major, the row's.
    """
    combined = []
    for source, rank_topk_idx in enumerate(topk_idx):
        total = np.zeros(rank_topk_idx.shape, np.float32)
        of_node = np.zeros((num_nodes, *rank_topk_idx.shape), np.float32)
        for rank, handle in enumerate(handles):
            tokens, rows = _rows_of(handles, source, rank)
            if handle.expert_row is None:
                of_node[rank * num_nodes // len(handles)][tokens] += weights[rank][rows]
                continue
            expert_rows = handle.expert_row[rows]
            is_local = expert_rows >= 0
            token_of, k_of = np.nonzero(is_local)
            total[tokens[token_of], k_of] = weights[rank][expert_rows[is_local]]
        for node_sum in of_node:
            total += node_sum
        combined.append(total)
    return combined


def _destinations_of(sent: Sent, num_ranks: int, num_experts: int) -> Array:
    if sent.is_token_in_rank is not None:
        return sent.is_token_in_rank
    assert sent.topk_idx is not None
    return destinations(sent.topk_idx, num_ranks, num_experts)


def _receive_compact(
    sent: Sequence[Sent], in_rank: Sequence[Array], rank: int, num_local_experts: int
) -> Received:
    """Rows of one rank in the order (source rank, token)."""
    pairs = [
        (src, token) for src, mask in enumerate(in_rank) for token in np.nonzero(mask[:, rank])[0]
    ]
    src_rank = np.array([src for src, _ in pairs], np.int32)
    src_token = np.array([token for _, token in pairs], np.int32)
    handle = Received(
        x=sent[rank].x,
        scales=None,
        topk_idx=None,
        topk_weights=None,
        num_tokens_per_expert=[],
        is_filled=np.ones(len(src_rank), bool),
        src_rank=src_rank,
        src_token=src_token,
        is_token_in_rank=in_rank[rank],
        rank_prefix_matrix=np.zeros(0, np.int32),
        tokens_per_expert=np.zeros(num_local_experts, np.int32),
        local_topk_idx=None,
        expert_row=None,
    )
    rows = _collect(sent, handle, "x")
    assert rows is not None
    handle.x = rows
    handle.scales = _collect(sent, handle, "scales")
    topk_idx = _collect(sent, handle, "topk_idx")
    weights = _collect(sent, handle, "topk_weights")
    if topk_idx is not None:
        is_local = (topk_idx >= 0) & (topk_idx // num_local_experts == rank)
        local = np.where(is_local, topk_idx - rank * num_local_experts, -1).astype(topk_idx.dtype)
        handle.local_topk_idx = handle.topk_idx = local
        counts = np.bincount(local[is_local], minlength=num_local_experts)
        handle.tokens_per_expert = counts.astype(np.int32)
        if weights is not None:
            handle.topk_weights = np.where(is_local, weights, np.float32(0))
    return handle


def _collect(sent: Sequence[Sent], handle: Received, field: str) -> Any:
    """Rows of a field of all ranks in compact order, or None where the field is absent."""
    arrays = [getattr(rank_sent, field) for rank_sent in sent]
    if any(array is None for array in arrays):
        return None
    rows = np.empty((len(handle.src_rank), *arrays[0].shape[1:]), arrays[0].dtype)
    for src, array in enumerate(arrays):
        mine = handle.src_rank == src
        rows[mine] = array[handle.src_token[mine]]
    return rows


def _expand(handle: Received, aligned: Array) -> None:
    """Turns a compact result into an expert-major one; ``aligned`` are the sizes of the groups."""
    assert handle.local_topk_idx is not None
    local = handle.local_topk_idx
    expert_row = np.full(local.shape, -1, np.int32)
    is_filled = np.zeros(aligned.sum(), bool)
    for expert, begin in enumerate(np.cumsum(aligned) - aligned):
        selections = np.argwhere(local == expert)  # ordered by (compact row, k)
        rows = begin + np.arange(len(selections))
        expert_row[selections[:, 0], selections[:, 1]] = rows
        is_filled[rows] = True
    weights = handle.topk_weights
    handle.expert_row = expert_row
    handle.is_filled = is_filled
    handle.topk_idx = None
    handle.x = _place(handle, handle.x)
    handle.scales = None if handle.scales is None else _place(handle, handle.scales)
    handle.topk_weights = None if weights is None else _place_weights(handle, weights)


def _place(handle: Received, compact: Any) -> Array:
    """Rows of the receive tensor from compact rows; zero where nothing is received."""
    placed = np.zeros((len(handle.is_filled), *compact.shape[1:]), compact.dtype)
    if handle.expert_row is None:
        placed[: len(compact)] = compact
        return placed
    row_of, k_of = np.nonzero(handle.expert_row >= 0)
    placed[handle.expert_row[row_of, k_of]] = compact[row_of]
    return placed


def _place_weights(handle: Received, compact: Array) -> Array:
    """float32 [N, K] in compact order to the shape of the layout."""
    if handle.expert_row is None:
        return _place(handle, compact)
    placed = np.zeros(len(handle.is_filled), np.float32)
    is_local = handle.expert_row >= 0
    placed[handle.expert_row[is_local]] = compact[is_local]
    return placed


def _resize(handle: Received, num_rows: int) -> None:
    """Gives the receive tensors exactly ``num_rows`` rows."""
    used = len(handle.is_filled)
    if used > num_rows:
        raise ValueError(f"num_worst_tokens {num_rows}, expected at least {used}")
    tail = num_rows - used

    def extended(rows: Array, fill: int) -> Array:
        unused = np.full((tail, *rows.shape[1:]), fill, np.int8)
        return np.concatenate([rows, unused.astype(rows.dtype)])

    handle.is_filled = extended(handle.is_filled, 0)
    handle.x = extended(handle.x, 0)
    handle.scales = None if handle.scales is None else extended(handle.scales, 0)
    handle.topk_idx = None if handle.topk_idx is None else extended(handle.topk_idx, -1)
    weights = handle.topk_weights
    handle.topk_weights = None if weights is None else extended(weights, 0)


def _rows_of(handles: Sequence[Received], source: int, rank: int) -> tuple[Array, Array]:
    """The tokens that ``source`` sent to ``rank``, and their compact rows there."""
    rows = np.nonzero(handles[rank].src_rank == source)[0]
    return handles[rank].src_token[rows], rows


def _rank_sum(x: Array, handle: Received, rows: Array) -> Array:
    """float32 [len(rows), H]: what one rank returns for the compact rows ``rows``."""
    if handle.expert_row is None:
        return x[rows].astype(np.float32)
    total = np.zeros((len(rows), x.shape[1]), np.float32)
    for expert_rows in handle.expert_row[rows].T:  # k ascending
        is_local = expert_rows >= 0
        total[is_local] += x[expert_rows[is_local]].astype(np.float32)
    return total.astype(x.dtype).astype(np.float32)


def _start(shape: tuple[int, int], biases: Sequence[Array]) -> Array:
    total = np.zeros(shape, np.float32)
    for bias in biases:
        total = total + bias.astype(np.float32)
    return total
