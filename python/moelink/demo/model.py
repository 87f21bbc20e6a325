"""A small character-level transformer whose feed-forward layers are mixtures of experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the model. Expert e lives on rank e // (num_experts / ranks)."""

    vocabulary_size: int
    context: int = 64
    width: int = 128
    num_heads: int = 4
    num_layers: int = 2
    num_experts: int = 16
    num_selected: int = 2
    expert_width: int = 256


class Experts(nn.Module):
    """Feed-forward networks, one per expert, stored as stacked weights."""

    def __init__(self, num_experts: int, width: int, expert_width: int) -> None:
        super().__init__()
        self.w_in = nn.Parameter(torch.randn(num_experts, width, expert_width) * width**-0.5)
        self.w_out = nn.Parameter(
            torch.randn(num_experts, expert_width, width) * (2 * expert_width) ** -0.5
        )

    def forward(self, rows: torch.Tensor, expert: int) -> torch.Tensor:
        """Outputs [rows, width] of one expert."""
        hidden = functional.gelu(rows @ self.w_in[expert], approximate="tanh")
        return hidden @ self.w_out[expert]

    @torch.no_grad()
    def keep(self, part: slice) -> None:
        """Forgets all experts outside `part`."""
        self.w_in = nn.Parameter(self.w_in[part].clone())
        self.w_out = nn.Parameter(self.w_out[part].clone())


@dataclass(frozen=True)
class Selection:
    """The experts that each token of one layer goes to."""

    probabilities: torch.Tensor  # float32 [tokens, experts]
    topk_idx: torch.Tensor  # int64 [tokens, selected]
    topk_weights: torch.Tensor  # float32 [tokens, selected], summing to 1


# Sends tokens [tokens, width] to the selected experts and returns the weighted sum of the outputs.
RunExperts = Callable[[torch.Tensor, Selection, Experts], torch.Tensor]


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, context, width = x.shape
        x = _with_previous(x)
        qkv = self.qkv(x).view(batch, context, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, context, width))


def _with_previous(x: torch.Tensor) -> torch.Tensor:
    """Takes half of the channels from the previous position: pairs of letters come for free."""
    here, previous = x.chunk(2, dim=-1)
    return torch.cat([here, functional.pad(previous, (0, 0, 1, -1))], dim=-1)


class MixtureOfExperts(nn.Module):
    """Router and experts; where the experts run is decided by `run_experts`."""

    def __init__(self, config: ModelConfig, run_experts: RunExperts) -> None:
        super().__init__()
        self.num_selected = config.num_selected
        self.run_experts = run_experts
        self.router = nn.Linear(config.width, config.num_experts, bias=False)
        self.experts = Experts(config.num_experts, config.width, config.expert_width)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Selection]:
        tokens = x.reshape(-1, x.shape[-1])
        selection = self.select(tokens)
        return self.run_experts(tokens, selection, self.experts).view(x.shape), selection

    def select(self, tokens: torch.Tensor) -> Selection:
        """Chooses the experts of every token."""
        probabilities = self.router(tokens).softmax(dim=-1)
        weights, topk_idx = probabilities.topk(self.num_selected, dim=-1)
        return Selection(probabilities, topk_idx, weights / weights.sum(dim=-1, keepdim=True))


class Block(nn.Module):
    """Attention and mixture of experts, each with a residual connection."""

    def __init__(self, config: ModelConfig, run_experts: RunExperts) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.mixture_norm = nn.LayerNorm(config.width)
        self.mixture = MixtureOfExperts(config, run_experts)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Selection]:
        x = x + self.attention(self.attention_norm(x))
        y, selection = self.mixture(self.mixture_norm(x))
        return x + y, selection


class LanguageModel(nn.Module):
    """Predicts the next character."""

    def __init__(self, config: ModelConfig, run_experts: RunExperts) -> None:
        super().__init__()
        self.config = config
        self.characters = nn.Embedding(config.vocabulary_size, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self._layers = [Block(config, run_experts) for _ in range(config.num_layers)]
        self.blocks = nn.ModuleList(self._layers)
        self.norm = nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, config.vocabulary_size, bias=False)
        for embedding in (self.characters, self.positions):
            nn.init.normal_(embedding.weight, std=0.5)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, list[Selection]]:
        """Logits [sequences, context, vocabulary] and the selections of every layer."""
        x = self.characters(ids) + self.positions.weight[: ids.shape[1]]
        selections = []
        for block in self._layers:
            x, selection = block(x)
            selections.append(selection)
        return self.out(self.norm(x)), selections

    def mixtures(self) -> list[MixtureOfExperts]:
        """The expert layers, in order."""
        return [block.mixture for block in self._layers]
