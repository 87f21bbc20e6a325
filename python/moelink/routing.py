"""The handle of one dispatch: where every token went and every row came from."""

from __future__ import annotations

from typing import Any

from moelink import _core
from moelink._tensors import Library

__all__ = ["Routing"]

_LAYOUT_NAMES = {_core.Layout.COMPACT: "compact", _core.Layout.EXPERT_MAJOR: "expert_major"}


class Routing:
    """Returned by :meth:`Buffer.dispatch` as ``handle``.

    It belongs to the buffer that made it and may be used any number of times, for combines and for
    cached dispatches. Symbols: T tokens of this rank, R ranks, K = top-k, L local experts, N
    received tokens. The tensors are of the library of the ``x`` that was dispatched.
    """

    __slots__ = ("_core", "_library")

    def __init__(self, core: _core.Routing, library: Library) -> None:
        self._core = core
        self._library = library

    @property
    def num_tokens(self) -> int:
        """T."""
        return self._core.num_tokens

    @property
    def num_recv_tokens(self) -> int:
        """N: distinct (token, this rank) pairs."""
        return self._core.num_recv_tokens

    @property
    def num_recv_rows(self) -> int:
        """Rows of the receive tensors, padding and unused tails included."""
        return self._core.num_recv_rows

    @property
    def num_topk(self) -> int:
        """K; 0 when routed by ``is_token_in_rank`` alone."""
        return self._core.num_topk

    @property
    def num_experts(self) -> int:
        """Experts over all ranks."""
        return self._core.num_experts

    @property
    def expert_alignment(self) -> int:
        """Every expert's group of rows is a multiple of it in the expert-major layout."""
        return self._core.expert_alignment

    @property
    def layout(self) -> str:
        """``"compact"`` or ``"expert_major"``."""
        return _LAYOUT_NAMES[self._core.layout]

    @property
    def is_token_in_rank(self) -> Any:
        """bool [T, R]."""
        return self._library.wrap(self._core.is_token_in_rank())

    @property
    def recv_src_token(self) -> Any:
        """int32 [N]: token index at its source rank, in compact order (source rank, token)."""
        return self._library.wrap(self._core.recv_src_token())

    @property
    def rank_prefix_matrix(self) -> Any:
        """int32 [R, R]: element [i, j] is the number of tokens sent to rank j by ranks 0 to i."""
        return self._library.wrap(self._core.rank_prefix_matrix())

    @property
    def recv_tokens_per_expert(self) -> Any:
        """int32 [L]: selections received by each local expert, unaligned."""
        return self._library.wrap(self._core.recv_tokens_per_expert())

    @property
    def recv_expert_row(self) -> Any:
        """int32 [N, K]: row of selection k of compact row n, -1 if not local. Expert-major only."""
        return self._library.wrap(self._core.recv_expert_row())

    def __repr__(self) -> str:
        return (
            f"<moelink.Routing {self.layout}, {self.num_tokens} tokens sent, "
            f"{self.num_recv_tokens} received in {self.num_recv_rows} rows>"
        )
