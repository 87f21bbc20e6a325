"""Threads as ranks with a deep_ep.Buffer each, and routings that every rank can recompute."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import deep_ep
import moelink
import pytest
import torch
from thread_ranks import run_threads

NUM_TOPK = 4
LOCAL_EXPERTS = 4

# (ranks, nodes)
ONE_NODE = [(1, 1), (2, 1), (3, 1), (4, 1), (8, 1)]
TWO_NODES = [(4, 2), (8, 2)]

needs_low_latency = pytest.mark.skipif(
    not hasattr(moelink.Buffer, "low_latency_dispatch"), reason="this build has no low latency mode"
)


@dataclass
class Routing:
    """What one rank sends: bfloat16 [T, H], int64 and float32 [T, K]."""

    x: torch.Tensor
    topk_idx: torch.Tensor
    topk_weights: torch.Tensor


def routing_of(rank: int, num_ranks: int, num_tokens: int = 48, hidden: int = 256) -> Routing:
    """The same for the same arguments; some selections are -1, and token 0 goes nowhere."""
    generator = torch.Generator().manual_seed(1000 * num_ranks + rank)
    num_experts = num_ranks * LOCAL_EXPERTS
    scores = torch.rand((num_tokens, num_experts), generator=generator)
    topk_idx = scores.topk(min(NUM_TOPK, num_experts), dim=1).indices
    topk_idx[torch.rand(topk_idx.shape, generator=generator) < 0.1] = -1
    topk_idx[:1] = -1
    x = torch.randn((num_tokens, hidden), generator=generator).bfloat16()
    topk_weights = torch.rand(topk_idx.shape, generator=generator)
    return Routing(x, topk_idx, topk_weights)


def in_rank(topk_idx: torch.Tensor, num_ranks: int) -> torch.Tensor:
    """bool [T, R]."""
    owner = torch.where(topk_idx >= 0, topk_idx // LOCAL_EXPERTS, -1)
    return (owner.unsqueeze(2) == torch.arange(num_ranks)).any(dim=1)


def run(shape: tuple[int, int], body: Callable[[deep_ep.Buffer], Any], **options: Any) -> list[Any]:
    """Results of ``body(buffer)`` in rank order, on (ranks, nodes)."""

    def with_buffer(group: moelink.Group) -> Any:
        buffer = deep_ep.Buffer(group, explicitly_destroy=True, **options)
        result = body(buffer)
        buffer.destroy()
        return result

    return run_threads(shape[0], with_buffer, num_nodes=shape[1])


def layout_arguments(buffer: deep_ep.Buffer, topk_idx: torch.Tensor) -> dict[str, Any]:
    """What dispatch takes from get_dispatch_layout."""
    layout = buffer.get_dispatch_layout(topk_idx, buffer.group_size * LOCAL_EXPERTS)
    names = (
        "num_tokens_per_rank",
        "num_tokens_per_rdma_rank",
        "num_tokens_per_expert",
        "is_token_in_rank",
    )
    return dict(zip(names, layout[:4], strict=True))
