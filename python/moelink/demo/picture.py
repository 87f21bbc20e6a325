"""The picture of a run: loss curves, where the time goes, and how busy every expert is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure

from moelink.demo import palette, verdict
from moelink.demo.record import ParallelRun, SingleRun

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": palette.INK,
    "axes.edgecolor": palette.MUTED,
    "axes.labelcolor": palette.INK,
    "axes.titlecolor": palette.INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": palette.GRID,
    "xtick.color": palette.MUTED,
    "ytick.color": palette.MUTED,
    "figure.facecolor": palette.PAPER,
    "axes.facecolor": palette.PAPER,
}
_MARGINS = {"left": 0.095, "right": 0.955, "top": 0.875, "bottom": 0.06}
_PART_LABELS = {
    "dispatch": "dispatch",
    "combine": "combine",
    "wait": "waiting for other ranks",
    "expert": "experts",
    "all-reduce": "all-reduce of gradients",
    "dense": "attention, optimiser, rest",
}
_NUM_BINS = 60
_BUSIEST = 2.5  # times the even share; the end of the colour scale
# Idle experts pale blue, evenly loaded ones white, crowded ones amber to red.
_LOAD_COLOURS = LinearSegmentedColormap.from_list(
    "load", ["#1d5fa8", "#9cc3e6", "#fbfbf9", "#f2b950", "#c2410c"]
)


def draw(path: Path, parallel: ParallelRun, single: SingleRun, entropy: float) -> None:
    """Writes the picture."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(14, 10.4))
        rows = figure.add_gridspec(2, 1, height_ratios=(4.6, 3.6), hspace=0.27, **_MARGINS)
        upper = rows[0].subgridspec(1, 2, width_ratios=(1.25, 1), wspace=0.14)
        curves = upper[0].subgridspec(2, 1, height_ratios=(3, 1.1), hspace=0.24)
        _draw_title(figure, parallel, single)
        losses = figure.add_subplot(curves[0])
        _draw_losses(losses, parallel, single, entropy)
        _draw_difference(figure.add_subplot(curves[1], sharex=losses), parallel, single)
        _draw_time(figure.add_subplot(upper[1]), parallel)
        _draw_loads(figure, rows[1], parallel)
        figure.savefig(path, dpi=130)


def _draw_title(figure: Figure, parallel: ParallelRun, single: SingleRun) -> None:
    gap = max(verdict.differences(parallel.losses, single.losses))
    figure.text(
        _MARGINS["left"],
        0.955,
        f"{parallel.num_ranks} expert-parallel ranks learn what one process learns",
        fontsize=19,
        fontweight="bold",
    )
    figure.text(
        _MARGINS["left"],
        0.928,
        f"A small mixture-of-experts language model on licence texts, {len(single.losses)} steps. "
        f"Largest difference of the losses: {gap:.1g}.",
        fontsize=11.5,
        color=palette.MUTED,
    )


def _draw_losses(axes: Any, parallel: ParallelRun, single: SingleRun, entropy: float) -> None:
    steps = np.arange(1, len(single.losses) + 1)
    axes.plot(
        steps,
        single.losses,
        color=palette.SINGLE,
        linewidth=5,
        alpha=0.9,
        solid_capstyle="round",
        label="single process",
    )
    axes.plot(
        steps,
        parallel.losses,
        color=palette.PARALLEL,
        linewidth=1.2,
        label=f"{parallel.num_ranks} ranks with Moelink",
    )
    axes.axhline(entropy, color=palette.MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(
        steps[-1],
        entropy + 0.04,
        "guessing by frequency of the characters",
        ha="right",
        va="bottom",
        fontsize=9,
        color=palette.MUTED,
    )
    axes.set_title("Loss")
    axes.set_ylabel("nats per character")
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, steps[-1])
    axes.tick_params(labelbottom=False)
    axes.legend(frameon=False, loc="lower left", fontsize=10)


def _draw_difference(axes: Any, parallel: ParallelRun, single: SingleRun) -> None:
    gaps = np.array(verdict.differences(parallel.losses, single.losses))
    steps = np.arange(1, len(gaps) + 1)
    early = min(verdict.EARLY_STEPS, len(gaps))
    axes.fill_between(
        steps, 1e-8, np.maximum(gaps, 2e-8), color=palette.PARALLEL, alpha=0.75, linewidth=0
    )
    axes.plot([1, early], [verdict.EARLY_TOLERANCE] * 2, color=palette.BAD, linewidth=1.6)
    axes.plot([early, steps[-1]], [verdict.LATE_TOLERANCE] * 2, color=palette.BAD, linewidth=1.6)
    axes.text(
        steps[-1],
        verdict.LATE_TOLERANCE * 1.5,
        "tolerated",
        ha="right",
        va="bottom",
        fontsize=9,
        color=palette.BAD,
    )
    axes.set_yscale("log")
    axes.set_ylim(1e-8, 1)
    axes.set_yticks([1e-8, 1e-6, 1e-4, 1e-2, 1])
    axes.minorticks_off()
    axes.set_title("Difference of the two curves")
    axes.set_xlabel("step")


def _draw_time(axes: Any, parallel: ParallelRun) -> None:
    seconds = {
        part: _binned([step.seconds[part] * 1000 for step in parallel.steps])
        for part in palette.PARTS
    }
    num_bins = len(seconds["expert"])
    steps = (np.arange(num_bins) + 0.5) * len(parallel.steps) / num_bins
    bottom = np.zeros(num_bins)
    for part, values in seconds.items():
        median = np.median([step.seconds[part] * 1000 for step in parallel.steps])
        label = f"{_PART_LABELS[part]}: {median:.{0 if median >= 10 else 1}f} ms"
        axes.bar(
            steps,
            values,
            bottom=bottom,
            width=0.86 * len(parallel.steps) / num_bins,
            color=palette.PARTS[part],
            label=label,
        )
        bottom += values
    axes.set_title("Time of a step, with medians")
    axes.set_xlabel("step")
    axes.set_ylabel("milliseconds")
    axes.set_xlim(0, len(parallel.steps))
    axes.grid(axis="x", visible=False)
    axes.set_ylim(0, 1.5 * np.percentile(bottom, 95))
    handles, names = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1],
        names[::-1],
        frameon=False,
        loc="upper right",
        fontsize=9.5,
        ncols=2,
        columnspacing=1.2,
        handlelength=1.4,
    )


def _draw_loads(figure: Figure, place: Any, parallel: ParallelRun) -> None:
    """One heat map per layer: a row per expert, grouped by rank."""
    loads = np.array([step.loads for step in parallel.steps], dtype=float)
    num_layers, num_experts = loads.shape[1:]
    shares = loads / loads.sum(axis=2, keepdims=True) * num_experts
    grid = place.subgridspec(
        1, num_layers + 1, width_ratios=(*[1] * num_layers, 0.022), wspace=0.09
    )
    norm = TwoSlopeNorm(1, 0, _BUSIEST)
    image: Any = None
    for layer in range(num_layers):
        axes = figure.add_subplot(grid[layer])
        binned = np.stack([_binned(shares[:, layer, e]) for e in range(num_experts)])
        image = axes.imshow(
            binned,
            aspect="auto",
            cmap=_LOAD_COLOURS,
            norm=norm,
            extent=(0, len(loads), num_experts, 0),
            interpolation="nearest",
        )
        _label_ranks(axes, num_experts, parallel.num_ranks)
        axes.tick_params(labelleft=layer == 0)
        axes.set_title(f"Load of every expert, layer {layer + 1}")
    bar = figure.colorbar(image, cax=figure.add_subplot(grid[num_layers]), extend="max")
    bar.set_ticks(
        [0, 0.5, 1, 1.5, 2, _BUSIEST], labels=["idle", "half", "even", "1.5 x", "2 x", "2.5 x"]
    )
    bar.outline.set_visible(False)


def _label_ranks(axes: Any, num_experts: int, num_ranks: int) -> None:
    per_rank = num_experts // num_ranks
    for rank in range(1, num_ranks):
        axes.axhline(rank * per_rank, color=palette.PAPER, linewidth=5)
    axes.set_yticks(
        [(rank + 0.5) * per_rank for rank in range(num_ranks)],
        labels=[f"rank {rank}\n{_expert_range(rank, per_rank)}" for rank in range(num_ranks)],
    )
    axes.tick_params(length=0)
    axes.set_xlabel("step")
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _expert_range(rank: int, per_rank: int) -> str:
    first, last = rank * per_rank, (rank + 1) * per_rank - 1
    return f"expert {first}" if first == last else f"experts {first} to {last}"


def _binned(values: Sequence[float] | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Means of up to _NUM_BINS runs of equal length."""
    size = max(1, -(-len(values) // _NUM_BINS))
    return np.array([np.mean(values[i : i + size]) for i in range(0, len(values), size)])
