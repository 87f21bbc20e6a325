"""The demo: it passes, it notices wrong results, and its parts do what they claim."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")

import moelink.demo.text as demo_text  # noqa: E402
from moelink.cli import exit_codes  # noqa: E402
from moelink.demo import main as run_demo  # noqa: E402
from moelink.demo import options, ranks, verdict  # noqa: E402
from moelink.demo.clock import PARTS, StepClock  # noqa: E402
from moelink.demo.model import Experts, ModelConfig, Selection  # noqa: E402
from moelink.demo.picture import draw  # noqa: E402
from moelink.demo.record import ParallelRun, SingleRun  # noqa: E402
from moelink.demo.text import Batches, Corpus, TextError, read_corpus  # noqa: E402
from moelink.demo.train import SingleProcess, TrainConfig, Trainer  # noqa: E402

needs_licenses = pytest.mark.skipif(
    not demo_text.LICENSES.is_dir(), reason=f"{demo_text.LICENSES} is a folder of Debian"
)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that spin would slow down everything else on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_corpus() -> Corpus:
    text = "the quick brown fox jumps over the lazy dog. " * 40
    vocabulary = "".join(sorted(set(text)))
    ids = torch.tensor([vocabulary.index(char) for char in text])
    return Corpus(vocabulary, ids, ids[:900], num_files=1)


def make_model(corpus: Corpus) -> ModelConfig:
    return ModelConfig(len(corpus.vocabulary), context=16, width=32, num_experts=4, expert_width=32)


def make_report(rank: int, step: int, loss: float) -> ranks.RankStep:
    loads = [[10 + rank, 20, 30, 4 + step] for _ in range(2)]
    return ranks.RankStep(rank, step, loss, dict.fromkeys(PARTS, 0.01), loads)


def make_parallel_run(losses: list[float]) -> ParallelRun:
    run = ParallelRun(num_ranks=2)
    for step, loss in enumerate(losses):
        for rank in (1, 0):
            run.add(make_report(rank, step, loss))
    return run


@needs_licenses
@pytest.mark.timeout(300)
def test_quick_demo_passes_and_writes_the_picture(tmp_path: Path) -> None:
    picture = tmp_path / "demo.png"
    command = [sys.executable, "-m", "moelink.demo", "--quick", "--steps", "3", "--out", picture]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == exit_codes.OK, done.stdout + done.stderr
    assert done.stdout.count("PASS") == 3  # two checks and the verdict
    assert "FAIL" not in done.stdout
    assert picture.read_bytes().startswith(PNG_SIGNATURE)


@needs_licenses
@pytest.mark.parametrize(
    ("error", "code"), [(0.0, exit_codes.OK), (1e-2, exit_codes.VERIFICATION_FAILED)]
)
def test_demo_fails_when_the_ranks_compute_something_else(
    error: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_plain_ranks(job: ranks.Job) -> Iterator[Any]:
        trainer = Trainer(SingleProcess(), job.corpus, job.model, job.config)
        for step in range(job.config.num_steps):
            loss = trainer.step(step) + error
            for rank in range(job.num_ranks):
                yield make_report(rank, step, loss)
        for rank in range(job.num_ranks):
            yield ranks.RankEnd(rank, 3.0, "This License", 1000)

    monkeypatch.setattr(ranks, "run_ranks", run_plain_ranks)
    arguments = ["--quick", "--ranks", "1", "--steps", "2", "--out", str(tmp_path / "demo.png")]
    assert run_demo(arguments) == code


def test_demo_without_texts_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_text.read_corpus, "__defaults__", (tmp_path / "absent",))
    assert run_demo(["--quick", "--out", str(tmp_path / "demo.png")]) == exit_codes.CANNOT
    message = capsys.readouterr().err
    assert str(tmp_path / "absent") in message
    assert "base-files" in message


def make_job(prompt: str, num_steps: int) -> ranks.Job:
    corpus = make_corpus()
    config = TrainConfig(num_steps, seed=0, batch_size=4, held_out_batches=1)
    return ranks.Job(2, corpus, make_model(corpus), config, (prompt,), 1)


@pytest.mark.timeout(300)
def test_failure_of_a_rank_ends_the_demo_with_its_story() -> None:
    job = make_job("no such letter: Q", num_steps=1)
    with pytest.raises(ranks.RankError, match=r"rank \d failed:\n[^$]*substring not found"):
        list(ranks.run_ranks(job))


@pytest.mark.timeout(300)
def test_death_of_a_rank_ends_the_demo_and_all_ranks() -> None:
    reports = ranks.run_ranks(make_job("the ", num_steps=100_000))
    next(reports)
    processes = {process.name: process for process in multiprocessing.active_children()}
    processes["rank 1"].kill()
    with pytest.raises(ranks.RankError, match="rank 1"):
        list(reports)
    assert not any(process.is_alive() for process in processes.values())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--ranks", "3"],
        ["--ranks", "0"],
        ["--steps", "0"],
        ["--out", "picture.txt"],
        ["--out", "no/such/folder/picture.png"],
    ],
)
def test_options_that_cannot_work_are_usage_errors(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        options.parse(arguments)
    assert leaving.value.code == exit_codes.USAGE
    assert arguments[0] in capsys.readouterr().err


def test_parts_of_a_batch_are_the_batch() -> None:
    batches = Batches(torch.arange(500), context=8, batch_size=6, seed=3)
    inputs, targets = batches.at(5)
    parts = [batches.at(5, slice(i, i + 2)) for i in (0, 2, 4)]
    assert torch.equal(inputs, torch.cat([part[0] for part in parts]))
    assert torch.equal(targets, inputs + 1)
    assert not torch.equal(inputs, batches.at(6)[0])


def test_corpus_counts_every_distinct_text_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("abc  d\n   e" * 4000)
    (tmp_path / "b").write_text("abc  d\n   e" * 4000)
    (tmp_path / "c").symlink_to(tmp_path / "a")
    corpus = read_corpus(tmp_path)
    assert corpus.num_files == 1
    assert corpus.vocabulary == "\n abcde"
    assert corpus.decode(corpus.train.tolist()).startswith("abc d\neabc d\ne")


def test_corpus_of_a_folder_with_little_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("abc")
    with pytest.raises(TextError, match="found 3 characters"):
        read_corpus(tmp_path)


def test_single_process_computes_every_selection() -> None:
    torch.manual_seed(0)
    experts = Experts(4, 8, 16)
    tokens = torch.randn(10, 8)
    topk_idx = torch.rand(10, 4).argsort(dim=1)[:, :2]
    weights = torch.rand(10, 2)
    selection = Selection(torch.empty(0), topk_idx, weights)
    expected = torch.stack(
        [
            sum(
                weights[t, k] * experts(tokens[t : t + 1], int(topk_idx[t, k]))[0] for k in range(2)
            )
            for t in range(10)
        ]
    )
    torch.testing.assert_close(SingleProcess().run_experts(tokens, selection, experts), expected)


def test_training_lowers_the_loss() -> None:
    corpus = make_corpus()
    config = TrainConfig(60, seed=0, batch_size=8, num_warmup_steps=5, learning_rate=4e-3)
    trainer = Trainer(SingleProcess(), corpus, make_model(corpus), config)
    losses = [trainer.step(step) for step in range(config.num_steps)]
    assert losses[-1] < 0.5 * corpus.unigram_entropy() < losses[0]


def test_verdict_names_the_phase_that_differs() -> None:
    single = [3.0 - step / 100 for step in range(250)]
    late = [loss + (0.1 if step == 249 else 0.0) for step, loss in enumerate(single)]
    early = [loss + (1e-3 if step == 0 else 0.0) for step, loss in enumerate(single)]
    assert [check.passed for check in verdict.judge(single, single, 3.0)] == [True, True, True]
    assert [check.passed for check in verdict.judge(late, single, 3.0)] == [True, False, True]
    assert [check.passed for check in verdict.judge(early, single, 3.0)] == [False, True, True]
    assert [check.passed for check in verdict.judge(single, single, 0.5)] == [True, True, False]


def test_verdict_refuses_losses_that_are_not_numbers() -> None:
    checks = verdict.judge([1.0, float("nan")], [1.0, 1.0], 3.0)
    assert [check.passed for check in checks] == [False, False]


def test_parallel_run_puts_loads_in_expert_order() -> None:
    run = make_parallel_run([2.0, 1.0])
    assert run.losses == [2.0, 1.0]
    assert run.steps[1].loads == [[10, 20, 30, 5, 11, 20, 30, 5]] * 2


def test_clock_takes_waiting_out_of_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    class Event:
        operation, stage = "dispatch", "receive"

        def __init__(self, point: str, time_ns: int) -> None:
            self.point, self.time_ns = point, time_ns

    now = iter([0.0, 1.0, 4.0, 10.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    clock = StepClock()
    with clock.part("dispatch"):  # from 1 to 4
        clock.on_trace(Event("begin", 5_000_000_000))
        clock.on_trace(Event("end", 7_000_000_000))
    seconds = clock.lap()
    assert (seconds["dispatch"], seconds["wait"], seconds["dense"]) == (1.0, 2.0, 7.0)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_picture_of_a_run_of_one_step_is_drawn(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"demo.{suffix}"
    draw(path, make_parallel_run([2.0]), SingleRun([2.0], 1.0, 2.0), 3.0)
    assert path.stat().st_size > 10_000
