"""Training that is the same for one process and for many ranks; a Placement tells them apart."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from moelink.demo.model import Experts, LanguageModel, ModelConfig, Selection
from moelink.demo.text import Batches, Corpus


@dataclass(frozen=True)
class TrainConfig:
    """What both runs have in common, next to the model's sizes."""

    num_steps: int
    seed: int
    batch_size: int = 16  # sequences in a step, over all ranks
    learning_rate: float = 2e-3
    num_warmup_steps: int = 20
    adam_epsilon: float = 1e-8
    balance_weight: float = 0.01
    held_out_batches: int = 4

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then a cosine down to a tenth."""
        if step < self.num_warmup_steps:
            return self.learning_rate * (step + 1) / self.num_warmup_steps
        done = (step - self.num_warmup_steps) / max(1, self.num_steps - self.num_warmup_steps)
        return self.learning_rate * (0.55 + 0.45 * math.cos(math.pi * done))


class Placement(ABC):
    """Where the experts live and how ranks add up what they have in common."""

    rank = 0
    num_ranks = 1

    @abstractmethod
    def run_experts(
        self, tokens: torch.Tensor, selection: Selection, experts: Experts
    ) -> torch.Tensor:
        """Weighted sum, for each of this rank's tokens, of the outputs of its experts."""

    @abstractmethod
    def place(self, model: LanguageModel) -> None:
        """Keeps the experts that live here."""

    @abstractmethod
    def sum_over_ranks(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over all ranks, without gradient."""

    @abstractmethod
    def average_gradients(self, model: LanguageModel) -> None:
        """Turns gradients of each rank's mean loss into gradients of the mean over all ranks."""

    def share_of(self, batch_size: int) -> slice:
        """The sequences of a batch that this rank works on."""
        share = batch_size // self.num_ranks
        return slice(self.rank * share, (self.rank + 1) * share)


class SingleProcess(Placement):
    """Everything in one process: the plain computation that the ranks have to agree with."""

    def run_experts(
        self, tokens: torch.Tensor, selection: Selection, experts: Experts
    ) -> torch.Tensor:
        num_selected = selection.topk_idx.shape[1]
        order = selection.topk_idx.flatten().argsort(stable=True)
        source = order // num_selected
        counts = selection.topk_idx.flatten().bincount(minlength=len(experts.w_in)).tolist()
        rows = tokens[source].split(counts)
        outputs = torch.cat([experts(rows[e], e) for e in range(len(counts))])
        weighted = outputs * selection.topk_weights.flatten()[order, None]
        return torch.zeros_like(tokens).index_add(0, source, weighted)

    def place(self, model: LanguageModel) -> None:
        """All experts live here."""

    def sum_over_ranks(self, values: torch.Tensor) -> torch.Tensor:
        return values

    def average_gradients(self, model: LanguageModel) -> None:
        """The gradients are those of the whole batch already."""


class Trainer:
    """One model in training. All ranks construct it from the same seed: equal initial weights."""

    def __init__(
        self, placement: Placement, corpus: Corpus, model: ModelConfig, config: TrainConfig
    ) -> None:
        torch.manual_seed(config.seed)
        self.placement = placement
        self.config = config
        self.model = LanguageModel(model, placement.run_experts)
        placement.place(self.model)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), eps=config.adam_epsilon, weight_decay=0.01, betas=(0.9, 0.98)
        )
        self.share = placement.share_of(config.batch_size)
        self.batches = Batches(corpus.train, model.context, config.batch_size, config.seed)
        self.tests = Batches(corpus.held_out, model.context, config.batch_size, config.seed + 1)

    def step(self, step: int) -> float:
        """One optimiser step; returns the mean loss of the whole batch before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(step)
        logits, targets, selections = self._predict(self.batches, step)
        loss = functional.cross_entropy(logits, targets)
        (loss + self.config.balance_weight * self._balance_loss(selections)).backward()
        self.placement.average_gradients(self.model)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return self._mean_over_ranks(loss)

    @torch.inference_mode()
    def held_out_loss(self) -> float:
        """Mean loss on text that was not learnt."""
        losses = [
            functional.cross_entropy(logits, targets)
            for logits, targets, _ in (
                self._predict(self.tests, i) for i in range(self.config.held_out_batches)
            )
        ]
        return self._mean_over_ranks(torch.stack(losses).mean())

    @torch.inference_mode()
    def write(self, prompt: torch.Tensor, length: int, temperature: float = 0.6) -> list[int]:
        """Continues a prompt by `length` characters. Collective: all ranks write at once."""
        generator = torch.Generator().manual_seed(self.config.seed + self.placement.rank)
        ids = prompt
        for _ in range(length):
            logits, _ = self.model(ids[None, -self.model.config.context :])
            chances = (logits[0, -1] / temperature).softmax(dim=-1)
            ids = torch.cat([ids, chances.multinomial(1, generator=generator)])
        return ids.tolist()

    def _predict(
        self, batches: Batches, index: int
    ) -> tuple[torch.Tensor, torch.Tensor, list[Selection]]:
        inputs, targets = batches.at(index, self.share)
        logits, selections = self.model(inputs)
        return logits.flatten(0, 1), targets.flatten(), selections

    def _balance_loss(self, selections: list[Selection]) -> torch.Tensor:
        """Smallest (1 per layer) when all experts get equally many tokens of the whole batch."""
        num_experts = self.model.config.num_experts
        counts = [s.topk_idx.flatten().bincount(minlength=num_experts) for s in selections]
        total_counts = self.placement.sum_over_ranks(torch.stack(counts).float())
        loads = total_counts / total_counts.sum(dim=1, keepdim=True)
        chances = torch.stack([s.probabilities.mean(dim=0) for s in selections])
        return num_experts * (loads * chances).sum()

    def _mean_over_ranks(self, value: torch.Tensor) -> float:
        total = self.placement.sum_over_ranks(value.detach().clone())
        return float(total) / self.placement.num_ranks


def train(trainer: Trainer, on_step: Callable[[int, float], None]) -> list[float]:
    """Runs all steps and returns the loss of each."""
    losses = []
    for step in range(trainer.config.num_steps):
        losses.append(trainer.step(step))
        on_step(step, losses[-1])
    return losses
