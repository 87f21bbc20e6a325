"""Config: tuning hints of the normal mode, and the defaults for each number of ranks."""

from __future__ import annotations

from dataclasses import dataclass

from deep_ep.index_type import topk_idx_t

__all__ = ["Config", "default_combine_config", "default_dispatch_config"]

RANKS_PER_NODE = 8
_ALIGNMENT = 128
_MAX_TOPK = 128
_MAX_SCALE_BYTES = 512
_META_BYTES = 8


@dataclass(frozen=True)
class Config:
    """Sizes of the chunks that tokens are sent in. Hints: results never depend on them."""

    num_sms: int = 20
    num_max_nvl_chunked_send_tokens: int = 6
    num_max_nvl_chunked_recv_tokens: int = 256
    num_max_rdma_chunked_send_tokens: int = 6
    num_max_rdma_chunked_recv_tokens: int = 256

    def __post_init__(self) -> None:
        if self.num_sms < 0:
            raise ValueError(f"Config: num_sms {self.num_sms}, expected >= 0")
        send, recv = self.num_max_nvl_chunked_send_tokens, self.num_max_nvl_chunked_recv_tokens
        if not 0 < send < recv:
            raise ValueError(
                f"Config: NVLink chunks send {send}, receive {recv}: expected 0 < send < receive"
            )
        send, recv = self.num_max_rdma_chunked_send_tokens, self.num_max_rdma_chunked_recv_tokens
        if send > 0:
            recv = _round_up(recv, send)
        if not 0 < send <= recv // 2:
            raise ValueError(
                f"Config: RDMA chunks send {send}, receive {recv}: expected 0 < 2 * send <= receive"
            )
        object.__setattr__(self, "num_max_rdma_chunked_recv_tokens", recv)

    @property
    def num_channels(self) -> int:
        """Columns of the channel matrices in handles."""
        return max(1, self.num_sms // 2)

    def get_nvl_buffer_size_hint(self, hidden_bytes: int, num_ranks: int) -> int:
        """Bytes to pass as ``num_nvl_bytes``; a budget, any number of tokens works with it."""
        num_peers = min(num_ranks, RANKS_PER_NODE)
        num_nodes = max(1, num_ranks // RANKS_PER_NODE)
        slots = self.num_max_nvl_chunked_recv_tokens * _slot_bytes(hidden_bytes)
        signals = 4 * (2 * num_nodes + 3)
        return _round_up(self.num_channels * num_peers * (signals + slots), _ALIGNMENT)

    def get_rdma_buffer_size_hint(self, hidden_bytes: int, num_ranks: int) -> int:
        """Bytes to pass as ``num_rdma_bytes``; 0 on one node."""
        if num_ranks <= RANKS_PER_NODE:
            return 0
        num_nodes = num_ranks // RANKS_PER_NODE
        slots = self.num_max_rdma_chunked_recv_tokens * (_slot_bytes(hidden_bytes) + 16)
        return _round_up(2 * self.num_channels * num_nodes * (72 + slots), _ALIGNMENT)


def _slot_bytes(hidden_bytes: int) -> int:
    routing = _MAX_TOPK * (topk_idx_t.itemsize + 4)
    return hidden_bytes + _META_BYTES + routing + _MAX_SCALE_BYTES


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


# Ranks: (nvl_send, nvl_recv, rdma_send, rdma_recv).
_Chunks = tuple[int, int, int, int]
_DISPATCH: dict[int, _Chunks] = {
    2: (24, 256, 6, 128),
    4: (6, 256, 6, 128),
    8: (6, 256, 6, 128),
    16: (36, 288, 20, 128),
    24: (32, 288, 8, 128),
    32: (32, 288, 8, 128),
    48: (32, 288, 8, 128),
    64: (32, 288, 8, 128),
    96: (20, 480, 12, 128),
    128: (20, 560, 12, 128),
    144: (32, 720, 12, 128),
    160: (28, 720, 12, 128),
}
_COMBINE: dict[int, _Chunks] = {
    2: (10, 256, 6, 128),
    4: (9, 256, 6, 128),
    8: (4, 256, 6, 128),
    16: (4, 288, 12, 128),
    24: (1, 288, 8, 128),
    32: (1, 288, 8, 128),
    48: (1, 288, 8, 128),
    64: (1, 288, 8, 128),
    96: (1, 480, 8, 128),
    128: (1, 560, 8, 128),
    144: (2, 720, 8, 128),
    160: (2, 720, 8, 128),
}


def default_dispatch_config(num_ranks: int, num_sms: int) -> Config:
    """Of the nearest number of ranks in the table."""
    return Config(num_sms, *_nearest(_DISPATCH, num_ranks))


def default_combine_config(num_ranks: int, num_sms: int) -> Config:
    """Of the nearest number of ranks in the table."""
    return Config(num_sms, *_nearest(_COMBINE, num_ranks))


def _nearest(table: dict[int, _Chunks], num_ranks: int) -> _Chunks:
    if num_ranks < 1:
        raise ValueError(f"num_ranks {num_ranks}, expected >= 1")
    return table[min(table, key=lambda known: (abs(known - num_ranks), known))]
