"""Dispatch and combine over torch.distributed `all_to_all_single`: the baseline of compare_gloo.py.

Written as an expert would write it: a token crosses once per destination rank, rows are gathered by
destination into buffers that live as long as the exchange, ids and weights travel as one message
(in the rows themselves when the payload is small, since a message then costs more than its bytes),
and the sum on the way back gathers, adds in float32 and rounds in one pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

# Below this payload, appending ids and weights to the rows (one copy more) beats one message more.
_PACK_BELOW_BYTES = 1 << 20


@dataclass(frozen=True)
class Shape:
    """What one exchange carries; the same on all ranks."""

    num_tokens: int
    hidden: int
    topk: int
    num_experts: int
    num_ranks: int

    @property
    def max_rows(self) -> int:
        return self.num_tokens * self.num_ranks

    @property
    def experts_per_rank(self) -> int:
        return self.num_experts // self.num_ranks


@dataclass(frozen=True)
class GlooRouting:
    """Where rows went: rows are ordered by (rank, token) on both sides."""

    send_counts: list[int]
    recv_counts: list[int]
    row_order: Tensor  # int64 [rows sent]: rows sorted by token, ranks ascending
    row_begin: Tensor  # int64 [T]: where a token's rows begin in row_order


@dataclass(frozen=True)
class GlooDispatch:
    recv_x: Tensor
    recv_topk_idx: Tensor  # int32, local expert or -1
    recv_topk_weights: Tensor
    routing: GlooRouting


class GlooExchange:
    """One rank's end. Results are views of buffers that the next call overwrites."""

    def __init__(self, shape: Shape, dtype: torch.dtype):
        self._shape = shape
        self._dtype = dtype
        self._rank = dist.get_rank()
        words = shape.hidden * dtype.itemsize // 4  # of a row's payload, as int32
        self._words = words
        self._packs = 4 * words * shape.num_tokens < _PACK_BELOW_BYTES
        row_words = words + 2 * shape.topk if self._packs else words
        self._packed = torch.zeros(shape.num_tokens, row_words, dtype=torch.int32)
        self._meta = torch.zeros(shape.num_tokens, 2 * shape.topk, dtype=torch.int32)
        self._send_rows, self._recv_rows = _int32_pair(shape.max_rows, row_words)
        self._send_meta, self._recv_meta = _int32_pair(shape.max_rows, 2 * shape.topk)
        self._returned_x = torch.zeros(shape.max_rows, shape.hidden, dtype=dtype)
        self._recv_counts = torch.zeros(shape.num_ranks, dtype=torch.int64)

    def dispatch(self, x: Tensor, topk_idx: Tensor, topk_weights: Tensor) -> GlooDispatch:
        is_token_in_rank = self._destinations(topk_idx)
        send_counts = is_token_in_rank.sum(1)
        counts_done = dist.all_to_all_single(self._recv_counts, send_counts, async_op=True)
        token_idx = is_token_in_rank.nonzero()[:, 1]  # while the counts travel
        self._gather(x.view(torch.int32), topk_idx, topk_weights, token_idx)
        row_order, row_begin = _rows_by_token(is_token_in_rank)
        counts_done.wait()
        sent, received = send_counts.tolist(), self._recv_counts.tolist()
        routing = GlooRouting(sent, received, row_order, row_begin)
        rows, meta = self._exchange(sent, received)
        local_idx, weights = self._localize(meta)
        return GlooDispatch(rows.view(self._dtype), local_idx, weights, routing)

    def combine(self, y: Tensor, routing: GlooRouting) -> Tensor:
        returned = self._returned_x[: len(routing.row_order)]
        dist.all_to_all_single(returned, y, routing.send_counts, routing.recv_counts)
        # One pass: gathers a token's rows, adds them in float32, rounds once.
        return torch.nn.functional.embedding_bag(
            routing.row_order, returned, routing.row_begin, mode="sum"
        )

    def _destinations(self, topk_idx: Tensor) -> Tensor:
        """bool [R, T]: whether a rank has one of the token's experts (every selection is valid)."""
        shape = self._shape
        is_in = torch.zeros(shape.num_tokens, shape.num_ranks, dtype=torch.bool)
        is_in.scatter_(1, topk_idx // shape.experts_per_rank, True)
        return is_in.t().contiguous()

    def _gather(
        self, x_words: Tensor, topk_idx: Tensor, topk_weights: Tensor, token_idx: Tensor
    ) -> None:
        """Fills the send buffers, rows by destination."""
        num_sent, topk = len(token_idx), self._shape.topk
        self._meta[:, :topk] = topk_idx
        self._meta[:, topk:] = topk_weights.view(torch.int32)
        if self._packs:
            torch.cat((x_words, self._meta), 1, out=self._packed)
            torch.index_select(self._packed, 0, token_idx, out=self._send_rows[:num_sent])
            return
        torch.index_select(self._meta, 0, token_idx, out=self._send_meta[:num_sent])
        torch.index_select(x_words, 0, token_idx, out=self._send_rows[:num_sent])

    def _exchange(self, sent: list[int], received: list[int]) -> tuple[Tensor, Tensor]:
        """Payload and metadata of the received rows."""
        num_sent, num_received = sum(sent), sum(received)
        rows, meta = self._recv_rows[:num_received], self._recv_meta[:num_received]
        if self._packs:
            dist.all_to_all_single(rows, self._send_rows[:num_sent], received, sent)
            return rows[:, : self._words], rows[:, self._words :]
        meta_done = dist.all_to_all_single(
            meta, self._send_meta[:num_sent], received, sent, async_op=True
        )
        dist.all_to_all_single(rows, self._send_rows[:num_sent], received, sent)
        meta_done.wait()
        return rows, meta

    def _localize(self, meta: Tensor) -> tuple[Tensor, Tensor]:
        """Ids inside this rank (-1: another rank's) and weights (0 there)."""
        shape = self._shape
        local_idx = meta[:, : shape.topk] - self._rank * shape.experts_per_rank
        is_local = (local_idx >= 0) & (local_idx < shape.experts_per_rank)
        weights = meta[:, shape.topk :].view(torch.float32)
        return local_idx.where(is_local, -1), weights.where(is_local, 0.0)


def _int32_pair(num_rows: int, num_words: int) -> tuple[Tensor, Tensor]:
    """Send and receive buffer, zeroed so that their pages are in memory."""
    return (
        torch.zeros(num_rows, num_words, dtype=torch.int32),
        torch.zeros(num_rows, num_words, dtype=torch.int32),
    )


def _rows_by_token(is_token_in_rank: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse of the gather: rows of each token, ranks ascending, and where they begin."""
    row_of = is_token_in_rank.view(-1).cumsum(0).view(is_token_in_rank.shape) - 1
    row_order = row_of.t()[is_token_in_rank.t()]
    per_token = is_token_in_rank.sum(0)
    return row_order, per_token.cumsum(0) - per_token
