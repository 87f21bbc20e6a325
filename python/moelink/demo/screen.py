"""What the demo prints: live progress, a table that grows, and the summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console, Group
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from moelink.demo import palette
from moelink.demo.ranks import Job
from moelink.demo.record import ParallelRun, SingleRun, Step
from moelink.demo.verdict import Check, final_loss

_NUM_ROWS = 20
_HEADINGS = (
    ("", "step", 5),
    ("loss", "ranks", 6),
    ("loss", "single", 6),
    ("loss", "differ", 6),
    ("", "tokens/s", 8),
    ("ms", "dispatch", 8),
    ("ms", "expert", 6),
    ("ms", "combine", 7),
    ("ms", "wait", 5),
    ("ms", "rest", 5),
    ("ms", "step", 6),
)
_EXPLANATION = """\
every row: means since the row above; differ: largest |difference| of a step
wait: for other ranks, inside dispatch and combine
rest: attention, optimiser, all-reduce of their gradients"""


class Screen:
    """The terminal. All numbers of a row are means since the row before."""

    def __init__(self, job: Job, console: Console | None = None) -> None:
        self._job = job
        self._console = console or Console(highlight=False)
        self._tokens_per_step = job.config.batch_size * job.model.context

    def show_start(self) -> None:
        """What is about to happen."""
        job, model = self._job, self._job.model
        text = Text.assemble(
            ("A character-level language model: ", ""),
            (
                f"{model.num_layers} layers, {model.num_experts} experts each, "
                f"top-{model.num_selected}",
                "bold",
            ),
            f"\nlearns {job.corpus.num_files} licence texts "
            f"({len(job.corpus.train):,} characters) in {job.config.num_steps} steps "
            f"of {self._tokens_per_step:,} tokens:\n",
            ("first in a single process", palette.SINGLE),
            ", then with its experts on ",
            (f"{job.num_ranks} ranks", palette.PARALLEL),
            ".\nBoth have to arrive at the same losses.",
        )
        self._console.print(
            Panel(
                text,
                title="Moelink demo",
                title_align="left",
                box=box.ROUNDED,
                border_style=palette.MUTED,
            )
        )

    @contextmanager
    def single_progress(self) -> Iterator[Callable[[float], None]]:
        """A progress bar; call the function with the loss of every step."""
        with self._progress("single process", palette.SINGLE) as advance:
            yield lambda loss: advance(f"loss {loss:.3f}")

    @contextmanager
    def parallel_progress(self, single: SingleRun) -> Iterator[Callable[[Step], None]]:
        """A progress bar under a growing table; call the function with every step."""
        rows = _Rows(single, self._tokens_per_step, self._job.config.num_steps)
        name = f"{self._job.num_ranks} ranks"
        with self._progress(name, palette.PARALLEL) as advance:
            advance("starting", 0)
            is_headed = False

            def on_step(step: Step) -> None:
                nonlocal is_headed
                advance(f"loss {step.loss:.3f}")
                row = rows.add(step)
                if row is not None and not is_headed:
                    self._console.print(_headings())
                    is_headed = True
                if row is not None:
                    self._console.print(_grid([Text(cell) for cell in row]))

            yield on_step
        self._console.print(Text(_EXPLANATION, palette.MUTED))

    def show_texts(self, parallel: ParallelRun) -> None:
        """What the ranks wrote together."""
        lines = []
        for end in parallel.ends[:2]:
            prompt = self._job.prompts[end.rank % len(self._job.prompts)]
            text = " ".join(end.text.removeprefix(prompt).split())
            lines.append(
                Text.assemble((prompt, f"bold {palette.PARALLEL}"), (text, "italic"), " …")
            )
        self._console.print(
            Panel(
                Group(*lines),
                title="the ranks write, experts still spread",
                title_align="left",
                box=box.ROUNDED,
                border_style=palette.MUTED,
            )
        )

    def show_end(self, parallel: ParallelRun, single: SingleRun, checks: list[Check]) -> None:
        """The comparison of the runs and the verdict."""
        self._console.print(self._comparison(parallel, single))
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", border_style=palette.MUTED)
        for name, justify in (("check", "left"), ("measured", "right"), ("limit", "right")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        table.add_column("")
        for check in checks:
            verdict = Text("PASS", f"bold {palette.GOOD}")
            if not check.passed:
                verdict = Text("FAIL", f"bold {palette.BAD}")
            table.add_row(check.name, f"{check.value:.3g}", f"{check.limit:.3g}", verdict)
        self._console.print(table)

    def show_verdict(self, checks: list[Check], picture: Path, seconds: float) -> None:
        """The verdict, and where to look next."""
        name = f"{self._job.num_ranks} ranks learn what one process learns"
        if all(check.passed for check in checks):
            self._console.print(Text(f"PASS: {name}", f"bold {palette.GOOD}"))
        else:
            self._console.print(Text(f"FAIL: not shown that {name}", f"bold {palette.BAD}"))
        self._console.print(
            Text.assemble(
                "picture: ",
                (str(picture), "bold"),
                (f"   total time: {seconds:.0f} s", palette.MUTED),
            )
        )

    def _comparison(self, parallel: ParallelRun, single: SingleRun) -> Table:
        entropy = self._job.corpus.unigram_entropy()
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", border_style=palette.MUTED)
        table.add_column("")
        table.add_column("single process", justify="right", style=palette.SINGLE)
        table.add_column(f"{parallel.num_ranks} ranks", justify="right")
        num_tokens = self._tokens_per_step * len(single.losses)
        rows = (
            ("loss, last 20 steps", final_loss(single.losses), final_loss(parallel.losses), ".4f"),
            ("loss on unseen text", single.held_out_loss, parallel.ends[0].held_out_loss, ".4f"),
            ("unigram entropy (no context)", entropy, entropy, ".4f"),
            ("tokens/s", num_tokens / single.seconds, num_tokens / parallel.seconds, ",.0f"),
        )
        for name, of_single, of_ranks, style in rows:
            table.add_row(name, format(of_single, style), format(of_ranks, style))
        megabytes = max(end.symmetric_bytes for end in parallel.ends) / 1e6
        table.add_row("symmetric memory per rank", "", f"{megabytes:.1f} MB")
        return table

    @contextmanager
    def _progress(self, name: str, colour: str) -> Iterator[Callable[..., None]]:
        progress = Progress(
            TextColumn(f"[bold]{name:<14}"),
            BarColumn(bar_width=28, complete_style=colour, finished_style=colour),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]:<12}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
        )
        with progress:
            task = progress.add_task(name, total=self._job.config.num_steps, note="")
            yield lambda note, by=1: progress.update(task, advance=by, note=note)


class _Rows:
    """Turns steps into rows of the table, one row for every so many steps."""

    def __init__(self, single: SingleRun, tokens_per_step: int, num_steps: int) -> None:
        self._single = single
        self._tokens_per_step = tokens_per_step
        self._num_steps = num_steps
        self._steps_per_row = max(1, num_steps // _NUM_ROWS)
        self._steps: list[Step] = []
        self._num_done = 0

    def add(self, step: Step) -> list[str] | None:
        """The row that this step completes, if any."""
        self._steps.append(step)
        self._num_done += 1
        if self._num_done % self._steps_per_row and self._num_done < self._num_steps:
            return None
        steps, self._steps = self._steps, []
        singles = self._single.losses[self._num_done - len(steps) : self._num_done]
        gaps = [abs(s.loss - loss) for s, loss in zip(steps, singles, strict=True)]
        return self._cells(steps, singles, max(gaps))

    def _cells(self, steps: list[Step], singles: list[float], gap: float) -> list[str]:
        def mean_ms(part: str) -> float:
            return 1000 * sum(step.seconds[part] for step in steps) / len(steps)

        step_ms = sum(mean_ms(part) for part in steps[0].seconds)
        return [
            f"{self._num_done}",
            f"{sum(step.loss for step in steps) / len(steps):.4f}",
            f"{sum(singles) / len(singles):.4f}",
            f"{gap:.0e}",
            f"{1000 * self._tokens_per_step / step_ms:,.0f}",
            f"{mean_ms('dispatch'):.2f}",
            f"{mean_ms('expert'):.1f}",
            f"{mean_ms('combine'):.2f}",
            f"{mean_ms('wait'):.1f}",
            f"{mean_ms('all-reduce') + mean_ms('dense'):.1f}",
            f"{step_ms:.1f}",
        ]


def _grid(cells: list[Text]) -> Table:
    table = Table.grid(padding=(0, 1))
    for _, _, width in _HEADINGS:
        table.add_column(justify="right", width=width)
    table.add_row(*cells)
    return table


def _headings() -> Group:
    upper = _grid([Text(over, palette.MUTED) for over, _, _ in _HEADINGS])
    return Group(upper, _grid([Text(name, "bold") for _, name, _ in _HEADINGS]))
