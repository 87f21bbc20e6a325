"""Paths between emulated nodes, and what is counted on them."""

from collections.abc import Callable
from dataclasses import astuple

import moelink
import numpy as np
import pytest
from moelink import reference
from moelink.reference import Sent
from moelink.results import NetworkStatistics
from thread_ranks import run_threads

NUM_RANKS = 4
NUM_EXPERTS = 8
NUM_TOKENS = 50
HIDDEN = 64


def sent_by(rank: int) -> Sent:
    rng = np.random.default_rng(rank)
    x = rng.standard_normal((NUM_TOKENS, HIDDEN), np.float32)
    topk_idx = np.stack([rng.permutation(NUM_EXPERTS)[:3] for _ in range(NUM_TOKENS)])
    return Sent(x, topk_idx)


def exchange(
    group: moelink.Group, network_path: str
) -> tuple[np.ndarray, np.ndarray, NetworkStatistics]:
    """What dispatch and combine gave, and what they sent."""
    mine = sent_by(group.rank)
    with moelink.Buffer(group, num_experts=NUM_EXPERTS, network_path=network_path) as buffer:
        recv_x, handle = buffer.dispatch(mine.x, mine.topk_idx)
        combined_x = buffer.combine(recv_x, handle)
        return recv_x, combined_x, buffer.network_statistics()


def far_destinations(rank: int, ranks_per_unit: int) -> int:
    """(token, rank) or (token, node) pairs on the other of two nodes."""
    owners = sent_by(rank).topk_idx // (NUM_EXPERTS // NUM_RANKS)
    far = [owner for owner in range(NUM_RANKS) if owner // 2 != rank // 2]
    units = {owner // ranks_per_unit for owner in far}
    return sum((owners // ranks_per_unit == unit).any(axis=1).sum() for unit in units)


@pytest.mark.parametrize(("network_path", "ranks_per_unit"), [("hierarchical", 2), ("direct", 1)])
def test_each_path_gives_the_reference_and_counts_what_crosses(
    network_path: str, ranks_per_unit: int
):
    sent = [sent_by(rank) for rank in range(NUM_RANKS)]
    handles = reference.dispatch(sent, NUM_EXPERTS)
    expected = reference.combine([handle.x for handle in handles], handles, num_nodes=2)
    results = run_threads(NUM_RANKS, lambda group: exchange(group, network_path), num_nodes=2)
    for rank, (recv_x, combined_x, statistics) in enumerate(results):
        assert recv_x.tobytes() == handles[rank].x.tobytes()
        assert combined_x.tobytes() == expected[rank].tobytes()
        assert statistics.num_dispatch_rows == far_destinations(rank, ranks_per_unit)
        assert statistics.num_messages > 0
        num_rows = statistics.num_dispatch_rows + statistics.num_combine_rows
        assert statistics.num_bytes > num_rows * HIDDEN * 4


def test_one_node_sends_nothing_over_a_network():
    for _, _, statistics in run_threads(2, lambda group: exchange(group, "direct")):
        assert astuple(statistics) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({}, "hierarchical"),
        ({"survival": "mask"}, "direct"),
        ({"network_path": "direct"}, "direct"),
    ],
)
def test_a_buffer_tells_its_path(options: dict[str, str], path: str):
    def body(group: moelink.Group) -> str:
        with moelink.Buffer(group, **options) as buffer:
            return buffer.network_path

    assert run_threads(2, body, num_nodes=2) == [path, path]


def test_ranks_that_may_be_masked_cannot_forward():
    def body(group: moelink.Group) -> None:
        with moelink.Buffer(group, survival="mask", network_path="hierarchical", num_nodes=2):
            pass

    with pytest.raises(moelink.Error, match="expected network_path direct or auto"):
        run_threads(2, body, num_nodes=2)


def test_unknown_path_names_what_is_known():
    make: Callable[[moelink.Group], moelink.Buffer] = lambda group: moelink.Buffer(  # noqa: E731
        group, network_path="shortest"
    )
    with pytest.raises(moelink.Error, match=r"network_path 'shortest', expected 'auto', 'hier"):
        run_threads(1, make)
