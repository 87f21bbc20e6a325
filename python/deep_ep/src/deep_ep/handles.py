"""Handles: the plain tuples that callers keep, and the routing that one of their tensors carries.

A handle stays valid when it is copied into another tuple or kept by autograd, because the routing
is an attribute of the tensor object.
"""

from __future__ import annotations

from typing import Any

import torch
from moelink import Routing

from deep_ep.topology import Topology

__all__ = ["make_handle", "make_low_latency_handle", "routing_of"]

_ATTRIBUTE = "_moelink_routing"


def make_handle(
    routing: Routing,
    is_token_in_rank: torch.Tensor,
    topology: Topology,
    num_channels: int,
    pending_prefix: torch.Tensor | None = None,
    *,
    is_complete: bool,
) -> tuple[torch.Tensor, ...]:
    """Six tensors on one node, ten on several.

    ``pending_prefix``: stands in for the prefix matrix while it is not known; the caller fills it.
    ``is_complete``: whether the source tokens are known without waiting for the dispatch.
    """
    in_rank = _carry(is_token_in_rank.detach(), routing)  # the caller's own object stays bare
    rank_prefix = routing.rank_prefix_matrix if pending_prefix is None else pending_prefix
    num_rows = routing.num_recv_rows
    recv_src = routing.recv_src_token if is_complete else _opaque(in_rank, num_rows)
    make = _internode if topology.is_internode else _intranode
    return make(in_rank, rank_prefix, recv_src, topology, num_channels)


def _intranode(
    in_rank: torch.Tensor,
    rank_prefix: torch.Tensor,
    recv_src: torch.Tensor,
    topology: Topology,
    num_channels: int,
) -> tuple[torch.Tensor, ...]:
    num_ranks = topology.num_ranks
    return (
        rank_prefix,
        _opaque(in_rank, num_ranks, num_channels),  # channel_prefix_matrix
        _opaque(in_rank, num_ranks, num_channels),  # recv_channel_prefix_matrix
        recv_src,
        in_rank,
        _opaque(in_rank, in_rank.shape[0], num_ranks),  # send_head
    )


def _internode(
    in_rank: torch.Tensor,
    rank_prefix: torch.Tensor,
    recv_src: torch.Tensor,
    topology: Topology,
    num_channels: int,
) -> tuple[torch.Tensor, ...]:
    num_ranks, num_nodes = topology.num_ranks, topology.num_nodes
    from_ranks = rank_prefix[:, topology.rank]
    return (
        in_rank,
        _opaque(in_rank, num_nodes, num_channels),  # rdma_channel_prefix_matrix
        _opaque(in_rank, num_ranks, num_channels),  # gbl_channel_prefix_matrix
        _opaque(in_rank, num_nodes, num_channels),  # recv_rdma_channel_prefix_matrix
        from_ranks[topology.ranks_per_node - 1 :: topology.ranks_per_node],  # per node, inclusive
        _opaque(in_rank, num_ranks, num_channels),  # recv_gbl_channel_prefix_matrix
        from_ranks,  # recv_gbl_rank_prefix_sum
        _opaque(in_rank, recv_src.shape[0], 8, dtype=torch.uint8),  # recv_src_meta
        _opaque(in_rank, in_rank.shape[0], num_nodes),  # send_rdma_head
        _opaque(in_rank, num_nodes, topology.ranks_per_node),  # send_nvl_head
    )


def make_low_latency_handle(routing: Any) -> tuple[Any, ...]:
    """(src_info, layout_range, M, H, E)."""
    return (
        _carry(routing.src_info.detach(), routing),  # detached: the routing must not hold itself
        routing.layout_range,
        routing.num_max_tokens_per_rank,
        routing.hidden,
        routing.num_experts,
    )


def routing_of(handle: Any, where: str) -> Any:
    """The routing of a handle made above."""
    if isinstance(handle, (tuple, list)):
        for item in handle:
            routing = getattr(item, _ATTRIBUTE, None)
            if routing is not None:
                return routing
    raise ValueError(
        f"{where}: handle is a {type(handle).__name__}, expected the handle of a dispatch of this "
        "package (its tensors may not be cloned or moved)"
    )


def _carry(tensor: torch.Tensor, routing: Any) -> torch.Tensor:
    setattr(tensor, _ATTRIBUTE, routing)
    return tensor


def _opaque(like: torch.Tensor, *shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    """Shaped like what DeepEP has there; nobody reads it, so it has one element of memory."""
    return torch.empty((), dtype=dtype, device=like.device).expand(shape)
