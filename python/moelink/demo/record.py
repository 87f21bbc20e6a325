"""What the two runs have produced: the material of the table, the verdict and the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from moelink.demo.clock import PARTS
from moelink.demo.ranks import RankEnd, RankStep


@dataclass(frozen=True)
class Step:
    """One step over all ranks."""

    loss: float
    seconds: dict[str, float]  # mean over the ranks, by part
    loads: list[list[int]]  # [layer][expert]: tokens


@dataclass
class SingleRun:
    """The run without expert parallelism."""

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0  # all steps together
    held_out_loss: float = 0.0


@dataclass
class ParallelRun:
    """The run with expert parallelism."""

    num_ranks: int
    steps: list[Step] = field(default_factory=list)
    seconds: float = 0.0
    ends: list[RankEnd] = field(default_factory=list)
    _waiting: dict[int, list[RankStep]] = field(default_factory=dict)

    def add(self, report: RankStep) -> Step | None:
        """Takes one rank's report; returns the step when it was the last rank's."""
        reports = self._waiting.setdefault(report.step, [])
        reports.append(report)
        if len(reports) < self.num_ranks:
            return None
        del self._waiting[report.step]
        self.steps.append(merge_reports(reports))
        return self.steps[-1]

    @property
    def losses(self) -> list[float]:
        """Loss of the whole batch, step by step."""
        return [step.loss for step in self.steps]


def merge_reports(reports: Sequence[RankStep]) -> Step:
    """One step from the reports of all ranks."""
    ordered = sorted(reports, key=lambda report: report.rank)
    seconds = {part: sum(r.seconds[part] for r in ordered) / len(ordered) for part in PARTS}
    layers = zip(*(report.loads for report in ordered), strict=True)
    loads = [[count for counts in layer for count in counts] for layer in layers]
    return Step(ordered[0].loss, seconds, loads)
