"""The normal mode: get_dispatch_layout, dispatch and combine, on one node or several."""

from __future__ import annotations

from typing import Any

import moelink
import torch
from moelink import CombineResult, DispatchResult, Routing

from deep_ep.config import Config
from deep_ep.handles import make_handle, routing_of
from deep_ep.keywords import check_keywords
from deep_ep.topology import Topology
from deep_ep.utils.event import EventHandle, EventOverlap, event_of

__all__ = ["HighThroughputCalls"]

Payload = torch.Tensor | tuple[torch.Tensor, torch.Tensor]
DispatchReturn = tuple[
    Payload,
    torch.Tensor | None,
    torch.Tensor | None,
    list[int] | None,
    tuple[torch.Tensor, ...] | None,
    EventOverlap,
]


class HighThroughputCalls:
    """Mixed into Buffer. Symbols as in moelink.Buffer.

    ``previous_event``: waited for before inputs are read. ``async_finish``: results are ready after
    the returned event, inputs must not change until then. ``allocate_on_comm_stream``: needs both.
    """

    num_sms: int
    rank: int
    _device: torch.device
    _topology: Topology
    _buffer: moelink.Buffer

    def get_dispatch_layout(
        self,
        topk_idx: torch.Tensor,
        num_experts: int,
        previous_event: Any = None,
        async_finish: bool = False,
        allocate_on_comm_stream: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor, EventOverlap]:
        """(tokens per rank, per node or None, per expert, is_token_in_rank, event). Local."""
        where = "get_dispatch_layout"
        execution = self._execution(where, previous_event, async_finish, allocate_on_comm_stream)
        if execution["previous_event"] is not None:
            EventHandle.of(execution["previous_event"]).current_stream_wait()
        layout = self._open(where).query_layout(topk_idx, num_experts)
        per_node = layout.num_tokens_per_node if self._topology.is_internode else None
        event = EventOverlap(EventHandle() if async_finish else None)
        counts = (layout.num_tokens_per_rank, per_node, layout.num_tokens_per_expert)
        return (*counts, layout.is_token_in_rank, event)

    def dispatch(
        self,
        x: Any,
        handle: Any = None,
        num_tokens_per_rank: torch.Tensor | None = None,
        num_tokens_per_rdma_rank: torch.Tensor | None = None,
        is_token_in_rank: torch.Tensor | None = None,
        num_tokens_per_expert: torch.Tensor | None = None,
        topk_idx: torch.Tensor | None = None,
        topk_weights: torch.Tensor | None = None,
        expert_alignment: int = 1,
        num_worst_tokens: int = 0,
        config: Config | None = None,
        previous_event: Any = None,
        async_finish: bool = False,
        allocate_on_comm_stream: bool = False,
        *,
        num_experts: int | None = None,
        **keywords: Any,
    ) -> Any:
        """Sends tokens to the ranks of their experts; rows arrive ordered by (source rank, token).

        * With the results of ``get_dispatch_layout``: returns (recv_x, recv_topk_idx,
          recv_topk_weights, received selections per local expert rounded up to
          ``expert_alignment``, handle, event). ``is_token_in_rank`` decides where tokens go.
        * With ``handle``: the same placement; returns (recv_x, None, None, None, None, event).
        * ``num_worst_tokens``: > 0: so many rows, no wait for counts; unused rows have index -1.
        * Simple form, ``dispatch(x, topk_idx[, topk_weights])``: a moelink.DispatchResult, which
          unpacks to (recv_x, handle). ``num_experts`` as in the constructor.
        """
        check_keywords("dispatch", keywords, self.rank, self._topology.is_internode)
        self._open("dispatch")
        execution = self._execution(
            "dispatch", previous_event, async_finish, allocate_on_comm_stream, config
        )
        if isinstance(handle, torch.Tensor):  # dispatch(x, topk_idx, topk_weights)
            topk_weights = topk_weights if num_tokens_per_rank is None else num_tokens_per_rank
            handle, topk_idx, num_tokens_per_rank = None, handle, None
        layout = (num_tokens_per_rank, is_token_in_rank, num_tokens_per_expert)
        topk = (topk_idx, topk_weights)
        sizes: dict[str, Any] = {
            "expert_alignment": expert_alignment,
            "num_worst_tokens": num_worst_tokens,
        }
        if isinstance(handle, Routing):
            return self._buffer.dispatch(x, topk_idx, topk_weights, handle=handle, **execution)
        if handle is not None:
            return self._cached_dispatch(x, handle, topk, execution)
        if topk_idx is not None and all(tensor is None for tensor in layout):
            return self._buffer.dispatch(
                x, topk_idx, topk_weights, num_experts=num_experts, **sizes, **execution
            )
        self._check_layout(layout, topk, num_worst_tokens)
        return self._routed_dispatch(x, layout, topk, sizes, execution, config)

    def combine(
        self,
        x: torch.Tensor,
        handle: Any,
        topk_weights: torch.Tensor | None = None,
        bias: Any = None,
        config: Config | None = None,
        previous_event: Any = None,
        async_finish: bool = False,
        allocate_on_comm_stream: bool = False,
        **keywords: Any,
    ) -> Any:
        """Sums the rows that a token's ranks return, and adds the bias; there is no weighting.

        ``bias``: [T, H], or up to two of them. Returns (combined_x, combined_topk_weights or None,
        event); with a handle of the simple form what moelink.Buffer.combine returns.
        """
        check_keywords("combine", keywords, self.rank, self._topology.is_internode)
        self._open("combine")
        execution = self._execution(
            "combine", previous_event, async_finish, allocate_on_comm_stream, config
        )
        simple = isinstance(handle, Routing)
        routing = handle if simple else self._routing("combine", handle)
        result = self._buffer.combine(x, routing, topk_weights, bias=bias, **execution)
        if simple:
            return result
        if not isinstance(result, CombineResult):
            return result, None, EventOverlap(None)
        event = self._overlap(result.event, async_finish)
        return result.combined_x, result.combined_topk_weights, event

    def internode_dispatch(
        self,
        x: Any,
        handle: Any = None,
        num_tokens_per_rank: torch.Tensor | None = None,
        num_tokens_per_rdma_rank: torch.Tensor | None = None,
        is_token_in_rank: torch.Tensor | None = None,
        num_tokens_per_expert: torch.Tensor | None = None,
        topk_idx: torch.Tensor | None = None,
        topk_weights: torch.Tensor | None = None,
        expert_alignment: int = 1,
        config: Config | None = None,
        previous_event: Any = None,
        async_finish: bool = False,
        allocate_on_comm_stream: bool = False,
        num_worst_tokens: int = 0,
    ) -> Any:
        """``dispatch`` where the group has several nodes; ``config`` must be given."""
        self._check_internode("internode_dispatch", config)
        return self.dispatch(
            x,
            handle,
            num_tokens_per_rank,
            num_tokens_per_rdma_rank,
            is_token_in_rank,
            num_tokens_per_expert,
            topk_idx,
            topk_weights,
            expert_alignment,
            num_worst_tokens,
            config,
            previous_event,
            async_finish,
            allocate_on_comm_stream,
        )

    def internode_combine(
        self,
        x: torch.Tensor,
        handle: Any,
        topk_weights: torch.Tensor | None = None,
        bias: Any = None,
        config: Config | None = None,
        previous_event: Any = None,
        async_finish: bool = False,
        allocate_on_comm_stream: bool = False,
    ) -> Any:
        """``combine`` where the group has several nodes; ``config`` must be given."""
        self._check_internode("internode_combine", config)
        execution = (previous_event, async_finish, allocate_on_comm_stream)
        return self.combine(x, handle, topk_weights, bias, config, *execution)

    def _routed_dispatch(
        self,
        x: Any,
        layout: tuple[Any, Any, Any],
        topk: tuple[Any, Any],
        sizes: dict[str, Any],
        execution: dict[str, Any],
        config: Config | None,
    ) -> DispatchReturn:
        _, in_rank, per_expert = layout
        counts: list[int] | None = None
        if topk[0] is None:
            counts = self._expert_counts(per_expert, sizes["expert_alignment"], execution)
        result: DispatchResult = self._buffer.dispatch(
            x,
            topk[0],
            topk[1],
            num_experts=per_expert.numel(),
            is_token_in_rank=in_rank,
            **sizes,
            **execution,
        )
        is_async = execution["async_finish"]
        event = self._overlap(result.event, is_async)
        channels = Config(self.num_sms).num_channels if config is None else config.num_channels
        prefix = None
        if self._device.type == "cuda":  # the host may know sizes; contents come in stream order
            is_complete = sizes["num_worst_tokens"] == 0
        else:
            is_complete = not is_async
            if is_async and sizes["num_worst_tokens"] > 0:
                prefix = self._pending_prefix(result, event, in_rank.device)
        handle = make_handle(
            result.handle, in_rank, self._topology, channels, prefix, is_complete=is_complete
        )
        if counts is None:
            counts = list(result.num_recv_tokens_per_expert)
        return (
            result.recv_x,
            result.recv_topk_idx,
            result.recv_topk_weights,
            counts,
            handle,
            event,
        )

    def _cached_dispatch(
        self, x: Any, handle: Any, topk: tuple[Any, Any], execution: dict[str, Any]
    ) -> DispatchReturn:
        if topk != (None, None):
            raise ValueError(
                f"dispatch (rank {self.rank}): topk_idx or topk_weights given with handle, "
                "expected None"
            )
        routing = self._routing("dispatch", handle)
        result = self._buffer.dispatch(x, handle=routing, **execution)
        event = self._overlap(result.event, execution["async_finish"])
        return result.recv_x, None, None, None, None, event

    def _expert_counts(
        self, per_expert: torch.Tensor, alignment: int, execution: dict[str, Any]
    ) -> list[int]:
        """Sums the ranks' counts for each local expert, sent as rows: one to each rank."""
        num_ranks = self._topology.num_ranks
        num_local = per_expert.numel() // num_ranks
        width = -(-num_local // 4) * 4  # rows are multiples of 16 bytes
        device = per_expert.device
        rows = torch.zeros((num_ranks, width), dtype=torch.int32, device=device)
        if execution["previous_event"] is not None:
            EventHandle.of(execution["previous_event"]).current_stream_wait()
        rows[:, :num_local] = per_expert.view(num_ranks, num_local)
        to_own_rank = torch.eye(num_ranks, dtype=torch.bool, device=device)
        received = self._buffer.dispatch(
            rows, is_token_in_rank=to_own_rank, num_experts=per_expert.numel()
        )
        totals = received.recv_x[:, :num_local].sum(dim=0).tolist()
        return [-(-total // alignment) * alignment for total in totals]

    def _pending_prefix(
        self, result: DispatchResult, event: EventOverlap, device: torch.device
    ) -> torch.Tensor:
        """A matrix that gets its values when the dispatch is waited for."""
        num_ranks = self._topology.num_ranks
        prefix = torch.zeros((num_ranks, num_ranks), dtype=torch.int32, device=device)
        routing = result.handle

        def fill() -> None:
            prefix.copy_(routing.rank_prefix_matrix)

        event.event = EventHandle.of(result.event, fill)
        return prefix

    def _check_layout(
        self, layout: tuple[Any, Any, Any], topk: tuple[Any, Any], num_worst_tokens: int
    ) -> None:
        where = f"dispatch (rank {self.rank})"
        names = ("num_tokens_per_rank", "is_token_in_rank", "num_tokens_per_expert")
        absent = [name for name, tensor in zip(names, layout, strict=True) if tensor is None]
        if absent:
            raise ValueError(f"{where}: {', '.join(absent)} absent, expected it or a handle")
        num_ranks = self._topology.num_ranks
        if layout[0].numel() != num_ranks:
            raise ValueError(
                f"{where}: num_tokens_per_rank has {layout[0].numel()} elements, "
                f"expected {num_ranks}"
            )
        if layout[2].numel() == 0 or layout[2].numel() % num_ranks:
            raise ValueError(
                f"{where}: num_tokens_per_expert has {layout[2].numel()} elements, expected a "
                f"multiple of the {num_ranks} ranks"
            )
        if topk[0] is None and (topk[1] is not None or num_worst_tokens > 0):
            needing = "topk_weights" if topk[1] is not None else "num_worst_tokens"
            raise ValueError(f"{where}: topk_idx absent, expected it with {needing}")

    def _check_internode(self, operation: str, config: Config | None) -> None:
        where = f"{operation} (rank {self.rank})"
        if config is None:
            raise ValueError(f"{where}: config is None, expected a Config")
        if not self._topology.is_internode:
            raise ValueError(f"{where}: the group has one node, expected several")

    def _routing(self, operation: str, handle: Any) -> Routing:
        routing = routing_of(handle, f"{operation} (rank {self.rank})")
        if not isinstance(routing, Routing):
            raise ValueError(
                f"{operation} (rank {self.rank}): the handle of a low latency dispatch, expected "
                "one of dispatch"
            )
        return routing

    def _execution(
        self,
        operation: str,
        previous_event: Any,
        async_finish: bool,
        on_comm_stream: bool,
        config: Config | None = None,
    ) -> dict[str, Any]:
        where = f"{operation} (rank {self.rank})"
        event = event_of(previous_event, where)
        if on_comm_stream and (event is None or not async_finish):
            raise ValueError(
                f"{where}: allocate_on_comm_stream without previous_event or async_finish, "
                "expected both"
            )
        execution: dict[str, Any] = {"previous_event": event, "async_finish": bool(async_finish)}
        if self._device.type == "cuda":
            execution["num_workers"] = self.num_sms if config is None else config.num_sms
        return execution

    @staticmethod
    def _overlap(event: moelink.Event, is_async: bool) -> EventOverlap:
        return EventOverlap(EventHandle.of(event) if is_async else None)

    def _open(self, operation: str) -> moelink.Buffer:
        raise NotImplementedError
