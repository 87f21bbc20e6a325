"""The text that the demo learns: every licence that Debian ships, as characters."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

LICENSES = Path("/usr/share/common-licenses")
_HELD_OUT_SHARE = 0.08  # the end of every file is kept for the final test
_INDENTATION = re.compile(r"[ \t\f\r]*\n[ \t\f\r]*")
_BLANKS = re.compile(r"[ \t\f\r]+")


class TextError(RuntimeError):
    """There is no text to learn from; the message says what to install."""


@dataclass(frozen=True)
class Corpus:
    """Characters as small integers, split into a part to learn and a part to test on."""

    vocabulary: str
    train: torch.Tensor  # int64 [characters]
    held_out: torch.Tensor
    num_files: int

    def encode(self, text: str) -> torch.Tensor:
        """Ids of the characters of `text`; all of them must be in the vocabulary."""
        return torch.tensor([self.vocabulary.index(char) for char in text], dtype=torch.int64)

    def decode(self, ids: list[int]) -> str:
        """The text that `ids` stand for."""
        return "".join(self.vocabulary[index] for index in ids)

    def unigram_entropy(self) -> float:
        """Loss in nats per character of the best model that ignores all context."""
        counts = Counter(self.train.tolist())
        total = sum(counts.values())
        return -sum(n / total * math.log(n / total) for n in counts.values())


@dataclass(frozen=True)
class Batches:
    """Random windows of the text; a step's batch depends on the seed and the step alone."""

    data: torch.Tensor
    context: int
    batch_size: int
    seed: int

    def at(self, step: int, part: slice = slice(None)) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets [sequences, context] of one step, or of a part of its sequences."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        last_start = len(self.data) - self.context - 1
        starts = torch.randint(last_start + 1, (self.batch_size,), generator=generator)[part]
        windows = self.data[starts[:, None] + torch.arange(self.context + 1)]
        return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


def read_corpus(folder: Path = LICENSES) -> Corpus:
    """Reads every distinct text file of `folder`. Raises TextError when there are none."""
    texts = sorted(set(_file_texts(folder)))
    if sum(map(len, texts)) < 20_000:
        raise TextError(
            f"the demo learns from the licence texts in {folder}, but found "
            f"{sum(map(len, texts))} characters there (at least 20000 are needed); "
            "on Debian they belong to the package base-files"
        )
    vocabulary = "".join(sorted(set("".join(texts))))
    ids = {char: index for index, char in enumerate(vocabulary)}
    cuts = [int(len(text) * (1 - _HELD_OUT_SHARE)) for text in texts]
    train = "".join(text[:cut] for text, cut in zip(texts, cuts, strict=True))
    held_out = "".join(text[cut:] for text, cut in zip(texts, cuts, strict=True))
    return Corpus(
        vocabulary=vocabulary,
        train=torch.tensor([ids[char] for char in train]),
        held_out=torch.tensor([ids[char] for char in held_out]),
        num_files=len(texts),
    )


def _file_texts(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    texts = [path.read_text(encoding="ascii", errors="ignore") for path in files]
    return [_BLANKS.sub(" ", _INDENTATION.sub("\n", text)) for text in texts]
