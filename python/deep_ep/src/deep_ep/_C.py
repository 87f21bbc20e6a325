# ruff: noqa: N999
"""Names that other packages import from DeepEP's native module."""

from deep_ep.buffer import Buffer
from deep_ep.config import Config
from deep_ep.index_type import topk_idx_t
from deep_ep.utils.event import EventHandle

__all__ = [
    "Buffer",
    "Config",
    "EventHandle",
    "get_low_latency_rdma_size_hint",
    "is_sm90_compiled",
    "topk_idx_t",
]

get_low_latency_rdma_size_hint = Buffer.get_low_latency_rdma_size_hint
is_sm90_compiled = Buffer.is_sm90_compiled
