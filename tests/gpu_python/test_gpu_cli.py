"""The command line on GPUs."""

import json
from pathlib import Path

import pytest
from moelink.cli import doctor_cuda, exit_codes, main
from moelink.cli.doctor_check import NO

SMALL = ["--tokens", "33", "--hidden", "256", "--topk", "3", "--experts", "12", "--iters", "3"]


@pytest.mark.parametrize("layout", ["compact", "expert-major"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_bench_on_gpus_measures_and_verifies(tmp_path: Path, dtype: str, layout: str):
    path = tmp_path / "out.json"
    shape = ["--ranks", "2", "--dtype", dtype, "--layout", layout, "--alignment", "4"]
    code = main.main(
        ["bench", "--backend", "cuda", *SMALL, *shape, "--stages", "--json", str(path)]
    )
    document = json.loads(path.read_text())
    mismatches = [text for row in document["rows"] for text in row["mismatches"]]
    assert (code, mismatches) == (exit_codes.OK, [])
    assert len(document["rows"]) == 6
    assert all(row["median_us"] > 0 for row in document["rows"])
    stages = {row["operation"]: set(row["stages_us"]) for row in document["rows"]}
    assert {"count", "exchange", "place", "send"} <= stages["dispatch"]
    assert {"exchange", "reduce", "release"} <= stages["combine"]
    assert all(device.startswith("cuda:") for device in document["device_per_rank"])


@pytest.mark.parametrize("layout", ["per-expert", "per-rank"])
@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
def test_bench_of_low_latency_on_gpus_measures_and_verifies(
    tmp_path: Path, dtype: str, layout: str
):
    path = tmp_path / "out.json"
    shape = ["--mode", "ll", "--ranks", "2", "--dtype", dtype, "--layout", layout, "--graph"]
    code = main.main(["bench", "--backend", "cuda", *SMALL, *shape, "--json", str(path)])
    document = json.loads(path.read_text())
    mismatches = [text for row in document["rows"] for text in row["mismatches"]]
    assert (code, mismatches) == (exit_codes.OK, [])
    assert len(document["rows"]) == (10 if layout == "per-expert" else 7)
    assert all(row["median_us"] > 0 for row in document["rows"])


def test_doctor_sees_the_gpus():
    for check in doctor_cuda.checks():
        assert check.status != NO, check
    assert doctor_cuda.check_symmetric_memory().finding.startswith("cuda_")
