"""The expert-parallel placement: every rank holds some experts, Moelink carries the tokens."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

import torch
import torch.distributed as dist

import moelink
import moelink.torch
from moelink.demo.clock import StepClock
from moelink.demo.model import Experts, LanguageModel, Selection
from moelink.demo.train import Placement


class ExpertParallel(Placement):
    """Experts are spread over the ranks of a buffer; everything else is on every rank."""

    def __init__(self, buffer: moelink.Buffer, clock: StepClock) -> None:
        self.rank = buffer.rank
        self.num_ranks = buffer.num_ranks
        self.buffer: Any = _TimedBuffer(buffer, clock)
        self.clock = clock
        self.loads: list[list[int]] = []  # per layer: the rows that each expert of this rank got

    def run_experts(
        self, tokens: torch.Tensor, selection: Selection, experts: Experts
    ) -> torch.Tensor:
        received = moelink.torch.dispatch(
            self.buffer, tokens, selection.topk_idx, selection.topk_weights, layout="expert_major"
        )
        counts = received.num_recv_tokens_per_expert
        self.loads.append(counts)
        with self.clock.part("expert"):
            rows = received.recv_x.split(counts)
            outputs = torch.cat([experts(rows[e], e) for e in range(len(counts))])
            assert received.recv_topk_weights is not None
            weighted = outputs * received.recv_topk_weights[:, None]
        if weighted.requires_grad:
            received.recv_x.register_hook(self.clock.expert_backward_ends)
            weighted.register_hook(self.clock.expert_backward_begins)
        return moelink.torch.combine(self.buffer, weighted, received.handle)

    def place(self, model: LanguageModel) -> None:
        for mixture in model.mixtures():
            share = model.config.num_experts // self.num_ranks
            mixture.experts.keep(slice(self.rank * share, (self.rank + 1) * share))

    def sum_over_ranks(self, values: torch.Tensor) -> torch.Tensor:
        with self.clock.part("all-reduce"):
            dist.all_reduce(values)
        return values

    @torch.no_grad()
    def average_gradients(self, model: LanguageModel) -> None:
        """Experts have met the tokens of all ranks already; the rest is added up here."""
        with self.clock.part("all-reduce"):
            shared = _gradients(model, _Share.REPLICATED)
            flat = torch.cat([grad.flatten() for grad in shared])
            dist.all_reduce(flat)
            flat /= self.num_ranks
            for grad, total in zip(shared, flat.split([g.numel() for g in shared]), strict=True):
                grad.copy_(total.view_as(grad))
        for grad in _gradients(model, _Share.EXPERTS):
            grad /= self.num_ranks

    def take_loads(self) -> list[list[int]]:
        """The loads of the layers since the last call."""
        loads, self.loads = self.loads, []
        return loads


class _Share(Enum):
    """Which part of the model."""

    REPLICATED = auto()
    EXPERTS = auto()


def _gradients(model: LanguageModel, share: _Share) -> list[torch.Tensor]:
    parameters = [
        parameter
        for name, parameter in model.named_parameters()
        if (".experts." in name) == (share is _Share.EXPERTS)
    ]
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


class _TimedBuffer:
    """A buffer whose calls, forward and backward, are timed."""

    def __init__(self, buffer: moelink.Buffer, clock: StepClock) -> None:
        self._buffer = buffer
        self._clock = clock

    def dispatch(self, *arguments: Any, **options: Any) -> Any:
        with self._clock.part("dispatch"):
            return self._buffer.dispatch(*arguments, **options)

    def combine(self, *arguments: Any, **options: Any) -> Any:
        with self._clock.part("combine"):
            return self._buffer.combine(*arguments, **options)
