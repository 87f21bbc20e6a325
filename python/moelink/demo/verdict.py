"""Whether the two runs agree, and whether the model has learnt anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Both runs add up the same float32 numbers in another order, which makes losses differ by some
# 1e-6. Now and then two experts are so close in the router's opinion that this decides which one
# gets a token. One token in 1024 that goes elsewhere moves the loss by up to about 1e-4.
EARLY_STEPS = 25
EARLY_TOLERANCE = 3e-4
# From there on training amplifies the difference, as it does between two runs of one process that
# start 1e-7 apart. What is lost, doubled or wrongly weighted shows before that.
LATE_TOLERANCE = 0.05
# A model that has learnt predicts much better than the frequencies of the characters do.
LEARNT_SHARE = 0.75
LEARNT_STEPS = 200  # a shorter run is not expected to have learnt


@dataclass(frozen=True)
class Check:
    """One claim with its evidence."""

    name: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        """NaN fails."""
        return self.value <= self.limit


def differences(parallel: Sequence[float], single: Sequence[float]) -> list[float]:
    """|difference| of two loss curves, step by step."""
    return [abs(a - b) for a, b in zip(parallel, single, strict=True)]


def final_loss(losses: Sequence[float]) -> float:
    """Mean of the last steps, because single batches differ."""
    last = losses[-20:]
    return sum(last) / len(last)


def judge(parallel: Sequence[float], single: Sequence[float], entropy: float) -> list[Check]:
    """All checks of a run."""
    gaps = differences(parallel, single)
    early = gaps[:EARLY_STEPS]
    checks = [
        Check(f"max |difference|, first {len(early)} steps", _worst(early), EARLY_TOLERANCE),
        Check(f"max |difference|, all {len(gaps)} steps", _worst(gaps), LATE_TOLERANCE),
    ]
    if len(parallel) >= LEARNT_STEPS:
        name = f"loss at the end, vs {LEARNT_SHARE:.0%} of unigram entropy"
        checks.append(Check(name, final_loss(parallel), LEARNT_SHARE * entropy))
    return checks


def _worst(gaps: Sequence[float]) -> float:
    """The largest, or NaN if there is one."""
    return max(gaps, key=lambda gap: (gap != gap, gap))
