"""`moelink bench`: runs the measurement on local ranks or on a launcher's, and reports."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from moelink.cli import bench_report, exit_codes, launchers, ranks, tables
from moelink.cli.bench_options import (
    DEFAULT_NUM_RANKS,
    BenchOptions,
    from_arguments,
    shape_problems,
)

_JOB = "moelink.cli.bench_run:run_rank"


def run(arguments: argparse.Namespace) -> int:
    options = from_arguments(arguments)
    refusal = _refusal(options)
    if refusal is not None:
        return _fail(exit_codes.CANNOT, refusal)
    launcher = launchers.detect_launcher() if options.ranks is None else None
    if options.ranks is None:
        num_ranks = DEFAULT_NUM_RANKS if launcher is None else launcher.num_ranks
        options = replace(options, ranks=num_ranks)
    problems = shape_problems(options, options.ranks)
    if options.json is not None and not _is_writable(options.json):
        problems.append(f"--json {options.json}: its folder does not exist")
    if problems:
        if launcher is None or launcher.rank == 0:
            _fail(exit_codes.USAGE, "; ".join(problems))
        return exit_codes.USAGE
    return _run_local(options) if launcher is None else _run_joined(options)


def _refusal(options: BenchOptions) -> str | None:
    """Why this build or machine cannot run these options."""
    refusal = _cuda_refusal() if options.backend == "cuda" else None
    if refusal is not None:
        return f"--backend cuda: {refusal}"
    if options.dtype in ("bf16", "fp8", "int8"):  # low latency knows no others
        try:
            import ml_dtypes  # noqa: F401
        except ImportError:
            return f"--dtype {options.dtype} needs the package ml_dtypes: pip install ml_dtypes"
    return None


def _cuda_refusal() -> str | None:
    import moelink

    if not moelink.has_cuda_backend():
        return "this build has no CUDA backend; use --backend cpu"
    try:
        import torch
    except ImportError:
        return "needs PyTorch for its tensors: pip install torch"
    if not torch.cuda.is_available():
        return "PyTorch sees no GPU (torch.cuda.is_available() is False)"
    return None


def _is_writable(path: str) -> bool:
    return path == "-" or Path(path).resolve().parent.is_dir()


def _run_local(options: BenchOptions) -> int:
    assert options.ranks is not None
    kind = "threads" if options.threads else "processes"
    print(f"moelink bench: {options.ranks} local ranks as {kind}", file=sys.stderr)
    job = ranks.LocalJob(
        target=_JOB,
        arguments=asdict(options),
        num_ranks=options.ranks,
        num_nodes=options.nodes or 0,
        timeout_s=options.timeout,
    )
    start = ranks.run_threads if options.threads else ranks.run_processes
    progress = _Progress()
    try:
        results = start(job, progress)
    except ranks.RanksFailedError as error:
        progress.clear()
        code = exit_codes.CANNOT if _is_unsupported(error.code) else exit_codes.RUNTIME
        return _fail(code, str(error))
    progress.clear()
    return report(options, results)


def _run_joined(options: BenchOptions) -> int:
    """This process is one of a launcher's ranks; rank 0 reports."""
    import moelink
    from moelink.cli import bench_run

    try:
        num_nodes = options.nodes or 0
        group = moelink.Group.from_environment(timeout=options.timeout, num_nodes=num_nodes)
        result = bench_run.run_rank(group, asdict(options), lambda text: None)
        gathered = group.all_gather(json.dumps(result).encode())
    except moelink.Error as error:
        code = exit_codes.CANNOT if _is_unsupported(error.code.name) else exit_codes.RUNTIME
        return _fail(code, str(error))
    results = [json.loads(blob) for blob in gathered]
    if group.rank == 0:
        return report(options, results)
    return _exit_code(make_rows(results))


def report(options: BenchOptions, results: Sequence[dict[str, Any]]) -> int:
    """Writes the file, prints the tables (the main one last) and returns the exit code."""
    rows = make_rows(results)
    in_force = {name: results[0][name] for name in ("nodes", "network_path")}
    options = replace(options, **in_force)
    if options.json is not None:
        command = shlex.join(["moelink", *sys.argv[1:]])
        document = bench_report.make_document(options, command, rows, results)
        text = json.dumps(document, indent=2) + "\n"
        if options.json == "-":
            sys.stdout.write(text)
            return _exit_code(rows)
        Path(options.json).write_text(text, encoding="utf-8")
    for note in results[0]["notes"]:
        print(f"note: {note}", file=sys.stderr)
    for row in rows:
        for text in row["mismatches"][:5]:
            print(f"WRONG: {row['operation']}: {text}", file=sys.stderr)
    if options.stages:
        tables.print_table(bench_report.make_stage_table(rows))
        print()
    network = bench_report.make_network_table(options, rows)
    if network is not None:
        tables.print_table(network)
        print()
    tables.print_table(bench_report.make_table(options, rows))
    return _exit_code(rows)


def make_rows(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per operation from the results of all ranks in rank order."""
    from moelink.cli.bench_measure import RankTimes

    per_rank = [[RankTimes(**times) for times in result["operations"]] for result in results]
    return [bench_report.make_row(times) for times in zip(*per_rank, strict=True)]


def _exit_code(rows: Sequence[dict[str, Any]]) -> int:
    verified = all(row["verified"] for row in rows)
    return exit_codes.OK if verified else exit_codes.VERIFICATION_FAILED


def _is_unsupported(code: str | None) -> bool:
    return code == "UNSUPPORTED"


def _fail(code: int, message: str) -> int:
    print(f"moelink bench: {message}", file=sys.stderr)
    return code


class _Progress:
    """One line on the terminal that says what runs now; nothing when stderr is not a terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        if self._shown:
            print(f"\r\x1b[K  measuring {text} ...", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
