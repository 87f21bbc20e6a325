"""What compare_gloo.py lets run against each other: one class per way to dispatch and combine."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import Any, Protocol

import moelink
import numpy as np
import torch
from gloo_exchange import GlooDispatch, GlooExchange, Shape
from moelink.cli.bench_expectation import Expectation, differences
from moelink.cli.bench_inputs import RankInputs
from moelink.cli.bench_low_latency import expect_low_latency
from moelink.cli.bench_options import BenchOptions
from torch import Tensor


class Contestant(Protocol):
    """One rank's end. `dispatch` and `combine` are measured, `prepare` runs between them."""

    name: str

    def dispatch(self) -> None: ...

    def prepare(self) -> None:
        """Makes what the experts return, for which `combine` is not to pay."""

    def combine(self) -> None: ...

    def check(self) -> list[str]:
        """How the results of the last round differ from what is expected; then lets go of them."""


class TorchInputs:
    """The inputs of a rank as torch tensors that share their memory."""

    def __init__(self, inputs: RankInputs):
        self.x = torch.from_numpy(inputs.x.view(np.int16)).view(torch.bfloat16)
        self.topk_idx = torch.from_numpy(inputs.topk_idx)
        self.topk_weights = torch.from_numpy(inputs.topk_weights)


class GlooContestant:
    name = "gloo"

    def __init__(self, options: BenchOptions, inputs: TorchInputs, expected: Expectation):
        assert options.ranks is not None
        shape = Shape(options.tokens, options.hidden, options.topk, options.experts, options.ranks)
        self._exchange = GlooExchange(shape, inputs.x.dtype)
        self._inputs = inputs
        self._expected = expected
        self._dispatched: GlooDispatch
        self._rows: Tensor
        self._combined: Tensor

    def dispatch(self) -> None:
        inputs = self._inputs
        self._dispatched = self._exchange.dispatch(inputs.x, inputs.topk_idx, inputs.topk_weights)

    def prepare(self) -> None:
        self._rows = self._dispatched.recv_x.contiguous()

    def combine(self) -> None:
        self._combined = self._exchange.combine(self._rows, self._dispatched.routing)

    def check(self) -> list[str]:
        """Sums may differ in the rounding of ties: by one unit in the last place of bfloat16."""
        result, received = self._dispatched, self._expected.received
        found = differences("recv_x", _bits(result.recv_x), self._expected.recv_x.view(np.int16))
        topk_idx = result.recv_topk_idx.long().numpy()
        found += differences("recv_topk_idx", topk_idx, received.topk_idx)
        weights = result.recv_topk_weights.numpy()
        found += differences("recv_topk_weights", weights, received.topk_weights)
        expected = torch.from_numpy(self._expected.combined_x.view(np.int16)).view(torch.bfloat16)
        if not torch.allclose(self._combined.float(), expected.float(), rtol=2**-7, atol=1e-6):
            found.append("combined_x is further than one rounding from the reference")
        return found


class MoelinkContestant:
    """The experts return the receive tensor itself, as in-place experts do."""

    name = "moelink"

    def __init__(
        self,
        buffer: moelink.Buffer,
        options: BenchOptions,
        inputs: TorchInputs,
        expected: Expectation,
    ):
        self._buffer = buffer
        self._options = options
        self._inputs = inputs
        self._expected = expected
        self._result: Any = None
        self._rows: Any = None
        self._combined: Any = None

    def dispatch(self) -> None:
        inputs = self._inputs
        self._result = self._buffer.dispatch(
            inputs.x, inputs.topk_idx, inputs.topk_weights, num_experts=self._options.experts
        )

    def prepare(self) -> None:
        self._rows = self._result.recv_x

    def combine(self) -> None:
        self._combined = self._buffer.combine(self._rows, self._result.handle)

    def check(self) -> list[str]:
        """Everything is compared bit for bit with moelink.reference."""
        result, received = self._result, self._expected.received
        found = differences("recv_x", _bits(result.recv_x), self._expected.recv_x.view(np.int16))
        topk_idx, weights = result.recv_topk_idx.numpy(), result.recv_topk_weights.numpy()
        found += differences("recv_topk_idx", topk_idx, received.topk_idx)
        found += differences("recv_topk_weights", weights, received.topk_weights)
        expected = self._expected.combined_x.view(np.int16)
        found += differences("combined_x", _bits(self._combined), expected)
        return found

    def release(self) -> None:
        """Frees the receive tensors, so that the next round starts as the first did."""
        self._result = self._rows = self._combined = None


class MoelinkStagedContestant(MoelinkContestant):
    """The experts return a tensor outside symmetric memory, which combine must stage."""

    name = "moelink_staged"

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._foreign = torch.zeros(self._expected.recv_x.shape, dtype=torch.bfloat16)

    def prepare(self) -> None:
        self._rows = self._foreign.copy_(self._result.recv_x)


class MoelinkLowLatencyContestant(MoelinkContestant):
    """A row per (token, rank), as the contestants above move it; the experts return what came."""

    name = "moelink_ll"
    layout = "per_rank"

    def dispatch(self) -> None:
        inputs, options = self._inputs, self._options
        self._result = self._buffer.low_latency_dispatch(
            inputs.x,
            inputs.topk_idx,
            options.tokens,
            inputs.topk_weights,
            num_experts=options.experts,
            layout=self.layout,
        )

    def combine(self) -> None:
        inputs = self._inputs
        self._combined = self._buffer.low_latency_combine(
            self._rows, inputs.topk_idx, inputs.topk_weights, self._result.handle
        )

    def check(self) -> list[str]:
        """The rows in use, source by source, are those of the compact layout; so are the sums."""
        result, received = self._result, self._expected.received
        counts = result.recv_count.tolist()

        def in_use(tensor: Tensor) -> Any:
            parts = zip(tensor, counts, strict=True)
            return torch.cat([rows[:count] for rows, count in parts]).numpy()

        recv_x = in_use(result.recv_x.view(torch.int16))
        found = differences("recv_x", recv_x, self._expected.recv_x.view(np.int16))
        topk_idx = in_use(result.recv_topk_idx).astype(np.int64)
        found += differences("recv_topk_idx", topk_idx, received.topk_idx)
        weights = in_use(result.recv_topk_weights)
        found += differences("recv_topk_weights", weights, received.topk_weights)
        expected = self._expected.combined_x.view(np.int16)
        return found + differences("combined_x", _bits(self._combined), expected)


class MoelinkPerExpertContestant(MoelinkLowLatencyContestant):
    """A row per (token, expert), as grouped GEMMs want it; combine multiplies by the weights."""

    name = "moelink_ll_per_expert"
    layout = "per_expert"

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        options = replace(self._options, mode="ll", layout="per-expert")
        self._expert_rows = expect_low_latency(options, self._buffer.rank)

    def check(self) -> list[str]:
        result, expected = self._result, self._expert_rows
        count = result.recv_count.numpy()
        if not np.array_equal(count, expected.received.count):
            return ["recv_count differs"]
        recv_x = _bits(result.recv_x)[expected.used]
        found = differences("recv_x", recv_x, expected.recv_x.view(np.int16))
        combined = expected.combined_x["exact"].view(np.int16)
        return found + differences("combined_x", _bits(self._combined), combined)


class MemcpyContestant:
    """libc's memcpy of as many bytes as dispatch puts into receive tensors, and combine reads."""

    name = "memcpy"

    def __init__(self, expected: Expectation):
        received = expected.received
        parts = (expected.recv_x, received.topk_idx, received.topk_weights)
        self.dispatch_bytes = sum(part.nbytes for part in parts if part is not None)
        self.combine_bytes = expected.recv_x.nbytes
        self._source = np.ones(self.dispatch_bytes, np.uint8)
        self._target = np.zeros(self.dispatch_bytes, np.uint8)

    def dispatch(self) -> None:
        ctypes.memmove(self._target.ctypes.data, self._source.ctypes.data, self.dispatch_bytes)

    def prepare(self) -> None:
        pass

    def combine(self) -> None:
        ctypes.memmove(self._target.ctypes.data, self._source.ctypes.data, self.combine_bytes)

    def check(self) -> list[str]:
        return [] if np.array_equal(self._source, self._target) else ["the copy differs"]


def _bits(rows: Tensor) -> Any:
    """bfloat16 rows as NumPy int16, which needs no conversion."""
    return rows.contiguous().view(torch.int16).numpy()
