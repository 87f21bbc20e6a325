"""The low latency mode: dispatch and combine in fixed slots, and masks of lost ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import moelink
import torch

from deep_ep.handles import make_low_latency_handle, routing_of
from deep_ep.keywords import check_keywords
from deep_ep.topology import Topology
from deep_ep.utils.event import EventHandle, EventOverlap

__all__ = ["LowLatencyCalls", "low_latency_size_hint"]

_MAX_TOPK = 32
_NUM_TENSORS = 4
_ROUTING_BYTES = 128  # more than a row's source, weight and place take
Hook = Callable[[], None] | None
Handle = tuple[Any, ...]
LowLatencyReturn = tuple[Any, torch.Tensor, Handle, EventOverlap, Hook]


def low_latency_size_hint(
    num_max_tokens_per_rank: int, hidden: int, num_ranks: int, num_experts: int
) -> int:
    """Enough for every top-k, with the tensors that calls return; a multiple of 128.

    On a GPU these come from the same memory: those of two outstanding dispatches, of one whose
    experts run, and the one that combine sends without a copy.
    """
    num_topk = min(num_experts, _MAX_TOPK)
    hint = moelink.Buffer.low_latency_size_hint
    area = hint(num_max_tokens_per_rank, hidden, num_ranks, num_topk)
    tensor = num_experts * num_max_tokens_per_rank * (2 * hidden + _ROUTING_BYTES)
    return -(-(area + _NUM_TENSORS * tensor) // 128) * 128


class LowLatencyCalls:
    """Mixed into Buffer. M tokens per rank at most; at most two operations outstanding."""

    rank: int
    group_size: int
    low_latency_mode: bool
    enable_shrink: bool
    _topology: Topology
    _num_low_latency_calls: int
    _zero_copy_call: int | None

    def low_latency_dispatch(
        self,
        x: torch.Tensor,
        topk_idx: torch.Tensor,
        num_max_dispatch_tokens_per_rank: int,
        num_experts: int,
        cumulative_local_expert_recv_stats: torch.Tensor | None = None,
        dispatch_wait_recv_cost_stats: torch.Tensor | None = None,
        use_fp8: bool = True,
        round_scale: bool = False,
        use_ue8m0: bool = False,
        async_finish: bool = False,
        return_recv_hook: bool = False,
        **keywords: Any,
    ) -> LowLatencyReturn:
        """(recv, recv_count [L], handle, event, hook); recv has [L, R*M, H] rows per expert.

        ``use_fp8``: recv is a pair with scales per 128 channels: powers of two with
        ``round_scale``, packed exponents with ``use_ue8m0`` too. ``return_recv_hook``: only send;
        ``hook()``, once, receives. Both statistics are added to.
        """
        where = "low_latency_dispatch"
        check_keywords(where, keywords, self.rank, self._topology.is_internode)
        buffer = self._low_latency_buffer(where)
        result = buffer.low_latency_dispatch(
            x,
            topk_idx,
            num_max_dispatch_tokens_per_rank,
            num_experts=num_experts,
            fp8=self._scale_format(use_fp8, round_scale, use_ue8m0),
            recv_stats=cumulative_local_expert_recv_stats,
            wait_cost=dispatch_wait_recv_cost_stats,
            return_hook=bool(return_recv_hook),
            async_finish=bool(async_finish),
        )
        self._num_low_latency_calls += 1
        kept = (x, topk_idx, result.recv_x, result.recv_count)
        event = _overlap(result.event, async_finish, kept)
        handle = make_low_latency_handle(result.handle)
        return result.recv_x, result.recv_count, handle, event, result.hook

    def low_latency_combine(
        self,
        x: torch.Tensor,
        topk_idx: torch.Tensor,
        topk_weights: torch.Tensor,
        handle: Handle,
        use_logfmt: bool = False,
        zero_copy: bool = False,
        async_finish: bool = False,
        return_recv_hook: bool = False,
        out: torch.Tensor | None = None,
        combine_wait_recv_cost_stats: torch.Tensor | None = None,
        **keywords: Any,
    ) -> tuple[torch.Tensor, EventOverlap, Hook]:
        """(combined_x [T, H], event, hook): sums the experts' rows with the weights, k ascending.

        ``use_logfmt`` only asks for a smaller wire format; rows travel as bfloat16.
        ``zero_copy``: the tensor of ``get_next_low_latency_combine_buffer`` is sent, not ``x``.
        """
        where = "low_latency_combine"
        check_keywords(where, keywords, self.rank, self._topology.is_internode)
        buffer = self._low_latency_buffer(where)
        self._check_zero_copy(use_logfmt, zero_copy)
        result = buffer.low_latency_combine(
            x,
            topk_idx,
            topk_weights,
            self._low_latency_routing(where, handle),
            zero_copy=bool(zero_copy),
            out=out,
            wait_cost=combine_wait_recv_cost_stats,
            return_hook=bool(return_recv_hook),
            async_finish=bool(async_finish),
        )
        self._num_low_latency_calls += 1
        if isinstance(result, torch.Tensor):
            return result, EventOverlap(None), None
        combined = result.combined_x
        kept = (x, topk_idx, topk_weights, combined)
        return combined, _overlap(result.event, async_finish, kept), result.hook

    def get_next_low_latency_combine_buffer(self, handle: Handle) -> torch.Tensor:
        """bfloat16 [L, R*M, H]: sent by the next low latency call if it is a zero-copy combine."""
        where = "get_next_low_latency_combine_buffer"
        buffer = self._low_latency_buffer(where)
        self._zero_copy_call = self._num_low_latency_calls
        return buffer.low_latency_combine_buffer(self._low_latency_routing(where, handle))

    def clean_low_latency_buffer(
        self, num_max_dispatch_tokens_per_rank: int, hidden: int, num_experts: int
    ) -> None:
        """Collective among unmasked ranks: after normal calls, and before another shape is used."""
        where = "clean_low_latency_buffer"
        sizes = (num_max_dispatch_tokens_per_rank, hidden, num_experts)
        if min(sizes) <= 0:
            raise ValueError(f"{where} (rank {self.rank}): sizes {sizes}, expected more than 0")
        self._low_latency_buffer(where).clean_low_latency()

    def low_latency_update_mask_buffer(self, rank_to_mask: int, mask: bool = False) -> None:
        """Leaves a rank out, or takes it back. Local."""
        buffer = self._shrinking_buffer("low_latency_update_mask_buffer")
        if mask:
            buffer.mask_rank(rank_to_mask)
        else:
            buffer.unmask_rank(rank_to_mask)

    def low_latency_query_mask_buffer(self, mask_status: torch.Tensor) -> None:
        """Writes 1 for each rank that is left out, else 0, into int32 [R]."""
        where = "low_latency_query_mask_buffer"
        buffer = self._shrinking_buffer(where)
        if mask_status.shape != (self.group_size,) or mask_status.dtype is not torch.int32:
            raise ValueError(
                f"{where} (rank {self.rank}): mask_status is {mask_status.dtype} "
                f"{list(mask_status.shape)}, expected torch.int32 [{self.group_size}]"
            )
        masks = [int(buffer.is_masked(rank)) for rank in range(self.group_size)]
        mask_status.copy_(torch.tensor(masks, dtype=torch.int32, device="cpu"))

    def low_latency_clean_mask_buffer(self) -> None:
        """Takes all ranks back. Local."""
        buffer = self._shrinking_buffer("low_latency_clean_mask_buffer")
        for rank in range(self.group_size):
            if rank != self.rank and buffer.is_masked(rank):
                buffer.unmask_rank(rank)

    def _scale_format(self, use_fp8: bool, round_scale: bool, use_ue8m0: bool) -> str | None:
        if not use_fp8:
            return None
        if use_ue8m0 and not round_scale:
            raise ValueError(
                f"low_latency_dispatch (rank {self.rank}): use_ue8m0 without round_scale, "
                "expected both"
            )
        if use_ue8m0:
            return "ue8m0"
        return "power_of_two" if round_scale else "float32"

    def _check_zero_copy(self, use_logfmt: bool, zero_copy: bool) -> None:
        if not zero_copy:
            return
        where = f"low_latency_combine (rank {self.rank})"
        if use_logfmt:
            raise ValueError(f"{where}: use_logfmt with zero_copy, expected one of them")
        if self._zero_copy_call != self._num_low_latency_calls:
            raise ValueError(
                f"{where}: zero_copy, but the buffer to send is stale or was never asked for; "
                "expected get_next_low_latency_combine_buffer(handle) as the last call"
            )

    def _low_latency_routing(self, operation: str, handle: Any) -> Any:
        where = f"{operation} (rank {self.rank})"
        routing = routing_of(handle, where)
        if isinstance(routing, moelink.Routing):
            raise ValueError(
                f"{where}: the handle of dispatch, expected one of low_latency_dispatch"
            )
        return routing

    def _low_latency_buffer(self, operation: str) -> Any:
        if not self.low_latency_mode:
            raise RuntimeError(
                f"{operation} (rank {self.rank}): low_latency_mode is False, expected a Buffer "
                "made with low_latency_mode=True"
            )
        return self._open(operation)

    def _shrinking_buffer(self, operation: str) -> Any:
        if not self.enable_shrink:
            raise RuntimeError(
                f"{operation} (rank {self.rank}): enable_shrink is False, expected a Buffer made "
                "with enable_shrink=True"
            )
        return self._low_latency_buffer(operation)

    def _open(self, operation: str) -> moelink.Buffer:
        raise NotImplementedError


def _overlap(event: moelink.Event, is_async: bool, kept: tuple[Any, ...]) -> EventOverlap:
    return EventOverlap(EventHandle.of(event), kept) if is_async else EventOverlap(None)
