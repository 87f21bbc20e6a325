"""What `moelink.reference` says one rank must get, and the comparison with what it got."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelink import reference
from moelink.cli.bench_device import to_array
from moelink.cli.bench_inputs import RankInputs, combine_dtype, make_inputs
from moelink.cli.bench_options import BenchOptions

Array = NDArray[Any]

_CHANNELS_AT_ONCE = 512  # bounds the memory of the reference, which works on all ranks at once


@dataclass(frozen=True)
class Expectation:
    """Results of one rank. `received` holds all but the payload, which is in recv_x."""

    layout: reference.Layout
    received: reference.Received
    recv_x: Array  # [rows, H], padding rows zero
    combined_x: Array  # [T, H], of the rows that `expert_rows` makes

    @property
    def num_rows(self) -> int:
        return len(self.recv_x)


def expert_rows(options: BenchOptions, recv_x: Array) -> Array:
    """The benchmark's expert: its output is its input, as a type that can be summed."""
    return recv_x.astype(combine_dtype(options), copy=False)


def expect(options: BenchOptions, rank: int) -> Expectation:
    assert options.ranks is not None
    num_nodes = options.nodes or 1
    inputs = [make_inputs(options, source) for source in range(options.ranks)]
    handles = reference.dispatch(
        [_sent(rank_inputs, slice(0, 1)) for rank_inputs in inputs],
        options.experts,
        options.layout.replace("-", "_"),
        options.alignment,
    )
    num_rows = len(handles[rank].is_filled)
    recv_x = np.zeros((num_rows, options.hidden), inputs[rank].x.dtype)
    combined_x = np.zeros((options.tokens, options.hidden), combine_dtype(options))
    for begin in range(0, options.hidden, _CHANNELS_AT_ONCE):
        channels = slice(begin, begin + _CHANNELS_AT_ONCE)
        sent = [_sent(rank_inputs, channels) for rank_inputs in inputs]
        received = reference.dispatch_cached(sent, handles)
        returned = [expert_rows(options, rank_received.x) for rank_received in received]
        recv_x[:, channels] = received[rank].x
        combined_x[:, channels] = reference.combine(returned, handles, num_nodes=num_nodes)[rank]
    layout = reference.query_layout(
        inputs[rank].topk_idx, options.ranks, options.experts, num_nodes
    )
    return Expectation(layout, handles[rank], recv_x, combined_x)


def _sent(inputs: RankInputs, channels: slice) -> reference.Sent:
    return reference.Sent(
        x=inputs.x[:, channels],
        topk_idx=inputs.topk_idx,
        topk_weights=inputs.topk_weights,
        scales=inputs.scales,
    )


def differences(name: str, seen: Any, expected: Any) -> list[str]:
    """How a tensor differs from the expected one, bit for bit; empty when it does not."""
    if expected is None:
        return []
    if seen is None:
        return [f"{name} is absent"]
    seen, expected = to_array(seen), np.ascontiguousarray(expected)
    if seen.dtype != expected.dtype or seen.shape != expected.shape:
        return [
            f"{name} is {seen.dtype} {list(seen.shape)}, "
            f"expected {expected.dtype} {list(expected.shape)}"
        ]
    seen_bits, expected_bits = _bits(seen), _bits(expected)
    if np.array_equal(seen_bits, expected_bits):
        return []
    wrong = np.nonzero((seen_bits != expected_bits).any(axis=1))[0]
    return [f"{name} differs in {len(wrong)} of {len(expected)} rows, first in row {wrong[0]}"]


def _bits(array: Array) -> Array:
    """The bytes of each row."""
    return array.view(np.uint8).reshape(len(array), array.nbytes // max(1, len(array)))
