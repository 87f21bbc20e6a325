"""The command as the ranks of real launchers: mpirun of Open MPI and MPICH, and torchrun."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from moelink.cli import exit_codes, launchers
from process_ranks import SECRET, free_port

NUM_RANKS = 4
LIMIT_S = 90
SMALL = ["--tokens", "9", "--hidden", "256", "--topk", "3", "--experts", "12", "--iters", "2"]
COMMAND = [sys.executable, "-m", "moelink.cli.main"]


def find_mpirun(family: str) -> str:
    """The mpirun of an MPI; skips where there is none."""
    words = {"openmpi": "Open MPI", "mpich": "HYDRA"}[family]
    for name in (f"mpirun.{family}", f"mpiexec.{family}", "mpirun", "mpiexec"):
        path = shutil.which(name)
        if path is None:
            continue
        told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30)
        if words in told.stdout + told.stderr:
            return path
    package = {"openmpi": "openmpi-bin", "mpich": "mpich"}[family]
    pytest.skip(f"no mpirun of {family} on this machine (apt-get install {package})")


def start_of(launcher: str) -> list[str]:
    if launcher == "torchrun":
        if importlib.util.find_spec("torch") is None:
            pytest.skip("torchrun needs torch, which is not installed")
        address = ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
        run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(NUM_RANKS)]
        return [*run, *address, "-m", "moelink.cli.main"]
    path = find_mpirun(launcher)
    if launcher == "mpich":
        return [path, "-n", str(NUM_RANKS), *COMMAND]
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    passed = ["-x", "MOELINK_SECRET", "-x", "MOELINK_PORT"]
    return [path, *root, "--oversubscribe", "-n", str(NUM_RANKS), *passed, *COMMAND]


def run_under(launcher: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    start = start_of(launcher)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in launchers.RANK_VARIABLES and name != "MOELINK_PORT"
    }
    environment |= {"MOELINK_SECRET": SECRET, "PYTHONPATH": os.pathsep.join(sys.path)}
    if launcher != "torchrun":  # whose own port tells ours
        environment["MOELINK_PORT"] = str(free_port())
    return subprocess.run(
        [*start, *arguments],
        env=environment | changes,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def has_network() -> bool:
    from moelink._core import fabric_report

    return not fabric_report().problem


each_launcher = pytest.mark.parametrize("launcher", ["openmpi", "mpich", "torchrun"])


@each_launcher
def test_bench_joins_the_ranks_and_verifies(launcher: str, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    done = run_under(launcher, "bench", *SMALL, "--nodes", "2", "--json", str(path))
    assert done.returncode == exit_codes.OK, done.stderr
    document = json.loads(path.read_text())
    assert document["verified"]
    assert document["options"]["ranks"] == NUM_RANKS
    assert len(document["memory_per_rank"]) == NUM_RANKS
    assert done.stdout.count("layout query") == 1, "rank 0 alone reports"


@each_launcher
def test_doctor_measures_the_network_between_the_ranks(launcher: str) -> None:
    if not has_network():
        pytest.skip("libfabric is not installed here")
    done = run_under(launcher, "doctor", "--peers", "--json")
    assert done.returncode == exit_codes.OK, done.stderr
    document = json.loads(done.stdout)  # rank 0 alone prints
    assert document["reached"]
    assert document["verified"]
    assert len(document["ranks"]) == NUM_RANKS
    assert len(document["links"]) == NUM_RANKS * (NUM_RANKS - 1)


@pytest.mark.parametrize("launcher", ["openmpi", "mpich"])
def test_ranks_without_a_secret_say_what_to_set(launcher: str) -> None:
    done = run_under(launcher, "doctor", "--peers", MOELINK_SECRET="")
    assert done.returncode != exit_codes.OK
    assert "the job's secret is empty; set MOELINK_SECRET" in done.stdout + done.stderr
