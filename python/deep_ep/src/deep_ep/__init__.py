"""Expert-parallel dispatch and combine with DeepEP's names, served by moelink."""

from deep_ep.buffer import Buffer
from deep_ep.config import Config
from deep_ep.index_type import topk_idx_t
from deep_ep.topology import get_logical_domain_size, get_physical_domain_size
from deep_ep.utils.event import EventHandle, EventOverlap
from deep_ep.version import __version__

__all__ = [
    "Buffer",
    "Config",
    "EventHandle",
    "EventOverlap",
    "__version__",
    "get_logical_domain_size",
    "get_physical_domain_size",
    "topk_idx_t",
]
