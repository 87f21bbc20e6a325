"""Local ranks: results come back in order, and one failure ends everything with its reason."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from moelink.cli import ranks

JOBS = """
import os, signal, time
import moelink

def describe(group, arguments, progress):
    progress("describing")
    return [group.rank, group.num_ranks, group.num_nodes, arguments, os.getpid()]

def kill_one(group, arguments, progress):
    group.barrier()
    if group.rank == arguments["victim"]:
        os.kill(os.getpid(), signal.SIGKILL)
    group.barrier()

def raise_in_one(group, arguments, progress):
    if group.rank == arguments["victim"]:
        raise ValueError("broken on purpose")
    group.barrier()

def wrong_call(group, arguments, progress):
    with moelink.Buffer(group, hidden_bytes=16) as buffer:
        buffer.dispatch(None, None)

def sleep(group, arguments, progress):
    time.sleep(60)

def exit_quietly(group, arguments, progress):
    os._exit(7)
"""


@pytest.fixture(autouse=True)
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of jobs that the rank processes can import."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "rank_jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(str(folder))


def job(function: str, num_ranks: int = 3, **settings: object) -> ranks.LocalJob:
    return ranks.LocalJob(f"rank_jobs:{function}", num_ranks=num_ranks, **settings)  # type: ignore[arg-type]


def child_processes() -> set[int]:
    """Children of this process, zombies included."""
    children = set()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():
                children.add(int(folder.name))
    return children


def test_processes_return_results_in_rank_order() -> None:
    seen: list[str] = []
    results = ranks.run_processes(job("describe", 4, num_nodes=2, arguments="hello"), seen.append)
    assert [result[:4] for result in results] == [[rank, 4, 2, "hello"] for rank in range(4)]
    assert len({result[4] for result in results}) == 4
    assert seen == ["describing"]


def test_threads_return_results_in_rank_order() -> None:
    results = ranks.run_threads(job("describe", 4, num_nodes=2, arguments="hello"))
    assert [result[:4] for result in results] == [[rank, 4, 2, "hello"] for rank in range(4)]
    assert {result[4] for result in results} == {os.getpid()}


def test_killed_rank_is_named_and_nothing_is_left_behind() -> None:
    before = child_processes()
    with pytest.raises(ranks.RanksFailedError, match=r"rank 1 was ended by signal 9 \(SIGKILL\)"):
        ranks.run_processes(job("kill_one", arguments={"victim": 1}))
    assert child_processes() == before


def test_raising_rank_is_named_rather_than_those_that_lost_it() -> None:
    with pytest.raises(
        ranks.RanksFailedError, match="rank 2 failed: ValueError: broken on purpose"
    ):
        ranks.run_processes(job("raise_in_one", arguments={"victim": 2}))


def test_raising_thread_is_named() -> None:
    with pytest.raises(
        ranks.RanksFailedError, match="rank 2 failed: ValueError: broken on purpose"
    ):
        ranks.run_threads(job("raise_in_one", arguments={"victim": 2}, timeout_s=5.0))


def test_error_of_the_library_carries_its_code_and_no_traceback() -> None:
    with pytest.raises(ranks.RanksFailedError) as caught:
        ranks.run_processes(job("wrong_call", arguments=None))
    assert caught.value.code == "INVALID_ARGUMENT"
    assert "Traceback" not in str(caught.value)


def test_rank_that_exits_without_a_result_is_named() -> None:
    with pytest.raises(ranks.RanksFailedError, match=r"rank [0-2] ended with exit code 7"):
        ranks.run_processes(job("exit_quietly", arguments=None))


def test_run_that_lasts_too_long_is_ended() -> None:
    before = child_processes()
    with pytest.raises(ranks.RanksFailedError, match="did not end within 3 s"):
        ranks.run_processes(job("sleep", arguments=None, limit_s=3.0))
    assert child_processes() == before
