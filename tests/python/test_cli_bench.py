"""`moelink bench` from start to end, with few tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import moelink
import numpy as np
import pytest
from moelink.cli import bench_expectation, exit_codes, launchers, main

SMALL = ["--tokens", "9", "--hidden", "256", "--topk", "3", "--experts", "12", "--iters", "2"]
OPERATIONS = [
    "layout query",
    "dispatch",
    "cached dispatch",
    "worst-case disp.",
    "combine",
    "combine, staged",
]
LOW_LATENCY_OPERATIONS = [
    "dispatch",
    "dispatch, hook",
    "combine",
    "combine, hook",
    "pre-reduced",
    "pre-red., hook",
]


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in launchers.RANK_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def run_bench(path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    code = main.main(["bench", *SMALL, "--warmup", "1", "--json", str(path), *arguments])
    return code, json.loads(path.read_text())


def test_bench_of_processes_measures_and_verifies_every_operation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = run_bench(tmp_path / "out.json", "--ranks", "2")
    assert code == exit_codes.OK
    assert [row["operation"] for row in document["rows"]] == OPERATIONS
    for row in document["rows"]:
        assert row["verified"]
        assert len(row["times_us"]) == 2
        assert row["min_us"] <= row["median_us"] <= row["p99_us"]
        assert row["bytes_total"] == sum(row["bytes_per_rank"]) > 0
    assert len(document["memory_per_rank"]) == 2
    last_line = capsys.readouterr().out.splitlines()[-1]
    assert last_line.split()[-1] == "yes"


@pytest.mark.parametrize("layout", ["compact", "expert-major"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32", "fp8", "int8"])
def test_bench_verifies_every_type_in_both_layouts(dtype: str, layout: str, tmp_path: Path) -> None:
    shape = ["--threads", "--ranks", "3", "--alignment", "4", "--layout", layout]
    code, document = run_bench(tmp_path / "out.json", "--dtype", dtype, *shape)
    assert code == exit_codes.OK
    assert document["verified"]


def test_bench_verifies_emulated_nodes(tmp_path: Path) -> None:
    code, _ = run_bench(tmp_path / "out.json", "--threads", "--ranks", "4", "--nodes", "2")
    assert code == exit_codes.OK


@pytest.mark.parametrize("network_path", ["auto", "direct"])
def test_bench_tells_what_crosses_between_nodes(
    network_path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = ["--threads", "--ranks", "4", "--nodes", "2", "--network-path", network_path]
    code, document = run_bench(tmp_path / "out.json", *shape)
    assert code == exit_codes.OK
    expected = {"auto": "hierarchical", "direct": "direct"}[network_path]
    assert document["options"]["nodes"] == 2
    assert document["options"]["network_path"] == expected
    by_name = {row["operation"]: row for row in document["rows"]}
    for name in ("dispatch", "combine"):
        row = by_name[name]
        assert min(row["network_bytes_per_rank"]) > 0
        assert min(row["network_rows_per_rank"]) > 0
        assert row["network_gb_per_s"] > 0
    assert max(by_name["layout query"]["network_bytes_per_rank"]) == 0
    assert f"sent between 2 nodes, {expected}" in capsys.readouterr().out


def test_bench_accepts_ranks_without_tokens(tmp_path: Path) -> None:
    code, _ = run_bench(tmp_path / "out.json", "--threads", "--ranks", "2", "--tokens", "0")
    assert code == exit_codes.OK


@pytest.mark.parametrize("layout", ["per-expert", "per-rank"])
@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
def test_bench_of_low_latency_verifies_every_operation(
    dtype: str, layout: str, tmp_path: Path
) -> None:
    mode = ["--mode", "ll", "--layout", layout, "--dtype", dtype]
    shape = ["--threads", "--ranks", "3", "--hidden", "640"]  # more channels than one piece
    code, document = run_bench(tmp_path / "out.json", *mode, *shape)
    assert code == exit_codes.OK
    expected = LOW_LATENCY_OPERATIONS if layout == "per-expert" else LOW_LATENCY_OPERATIONS[:4]
    assert [row["operation"] for row in document["rows"]] == expected
    for row in document["rows"]:
        assert row["verified"]
        assert row["bytes_total"] == sum(row["bytes_per_rank"]) > 0


def test_bench_of_low_latency_runs_on_processes_and_times_stages(tmp_path: Path) -> None:
    code, document = run_bench(tmp_path / "out.json", "--mode", "ll", "--ranks", "2", "--stages")
    assert code == exit_codes.OK
    stages = {row["operation"]: set(row["stages_us"]) for row in document["rows"]}
    assert {"send", "receive"} <= stages["dispatch"]
    assert {"send_back", "reduce"} <= stages["pre-red., hook"]


def test_bench_of_low_latency_takes_few_tokens_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    shape = ["--hidden", "128", "--topk", "2", "--experts", "4", "--iters", "1", "--warmup", "0"]
    arguments = ["bench", "--mode", "ll", "--threads", "--ranks", "2", "--json", str(path), *shape]
    assert main.main(arguments) == exit_codes.OK
    options = json.loads(path.read_text())["options"]
    assert (options["tokens"], options["layout"]) == (16, "per-expert")


@pytest.mark.parametrize("operation", ["low_latency_dispatch", "low_latency_combine"])
def test_bench_of_low_latency_fails_when_a_single_bit_is_wrong(
    operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(moelink.Buffer, operation)

    def wrong(self: moelink.Buffer, *arguments: Any, **keywords: Any) -> Any:
        result = right(self, *arguments, **keywords)
        hook = keywords.get("return_hook")
        if self.rank == 1 and not hook:
            rows = result.recv_x[0] if operation == "low_latency_dispatch" else result
            rows.view(np.uint8)[0, 7] ^= 1
        return result

    monkeypatch.setattr(moelink.Buffer, operation, wrong)
    mode = ["--mode", "ll", "--threads", "--ranks", "2"]
    code, document = run_bench(tmp_path / "out.json", *mode)
    assert code == exit_codes.VERIFICATION_FAILED
    wrong_rows = [row["operation"] for row in document["rows"] if not row["verified"]]
    assert operation.removeprefix("low_latency_") in wrong_rows


def test_bench_with_stages_times_those_of_dispatch_and_combine(tmp_path: Path) -> None:
    _, document = run_bench(tmp_path / "out.json", "--ranks", "2", "--stages")
    stages = {row["operation"]: set(row["stages_us"]) for row in document["rows"]}
    assert "send" in stages["dispatch"]
    assert "reduce" in stages["combine"]


def test_bench_fails_when_a_single_bit_of_a_result_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    combine = moelink.Buffer.combine

    def wrong_combine(self: moelink.Buffer, *arguments: Any, **keywords: Any) -> Any:
        combined = combine(self, *arguments, **keywords)
        if self.rank == 1:
            combined.view(np.uint8)[5, 7] ^= 1
        return combined

    monkeypatch.setattr(moelink.Buffer, "combine", wrong_combine)
    code, document = run_bench(tmp_path / "out.json", "--threads", "--ranks", "2")
    assert code == exit_codes.VERIFICATION_FAILED
    assert not document["verified"]
    assert "rank 1: call 0: combined_x differs in 1 of 9 rows, first in row 5" in (
        capsys.readouterr().err
    )


def test_bench_reports_a_failed_rank_as_a_runtime_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: Any, **keywords: Any) -> Any:
        raise moelink.Error("no memory left", moelink.ErrorCode.SYSTEM)

    monkeypatch.setattr(moelink.Buffer, "query_layout", refuse)
    code = main.main(["bench", *SMALL, "--threads", "--ranks", "2", "--timeout", "5"])
    assert code == exit_codes.RUNTIME
    assert "failed: no memory left" in capsys.readouterr().err


def test_json_to_standard_output_is_nothing_but_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main.main(["bench", *SMALL, "--threads", "--ranks", "2", "--json", "-"])
    assert json.loads(capsys.readouterr().out)["verified"]


def test_differences_tells_a_negative_zero_from_zero() -> None:
    zeros = np.zeros((2, 4), np.float32)
    assert bench_expectation.differences("x", zeros, zeros) == []
    assert bench_expectation.differences("x", -zeros, zeros) != []


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"MOELINK_RANK": "1", "MOELINK_NUM_RANKS": "4", "RANK": "0"}, "by hand"),
        ({"RANK": "1", "WORLD_SIZE": "4"}, "torchrun"),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4"}, "mpirun (Open MPI)"),
        ({"PMI_RANK": "1", "PMI_SIZE": "4"}, "mpirun (PMI)"),
        ({"PMIX_RANK": "1", "SLURM_NTASKS": "4"}, "PMIx"),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, "srun (Slurm)"),
        # A step may have fewer tasks than the job.
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "9"}, "srun (Slurm)"),
    ],
)
def test_launcher_is_recognised_by_its_variables(variables: dict[str, str], name: str) -> None:
    assert launchers.detect_launcher(variables) == launchers.Launcher(name, 1, 4)


def test_launcher_needs_both_of_its_variables() -> None:
    assert launchers.detect_launcher({"RANK": "1"}) is None
