"""The trace hook sees every stage, survives errors, and does no harm at exit."""

import subprocess
import sys
import textwrap
import time

import moelink
import numpy as np
import pytest
from thread_ranks import run_threads

X = np.ones((16, 64), np.float32)
IDX = np.arange(32).reshape(16, 2)


@pytest.fixture
def events():
    """Events of all ranks, in the order in which they came."""
    seen: list[moelink.TraceEvent] = []
    moelink.set_trace_hook(seen.append)
    yield seen
    moelink.set_trace_hook(None)


def round_trip(group: moelink.Group) -> None:
    with moelink.Buffer(group) as buffer:
        recv_x, handle = buffer.dispatch(X, IDX % group.num_ranks)
        buffer.combine(recv_x, handle)


def test_hook_sees_the_stages_in_order(events):
    before = time.monotonic_ns()
    run_threads(2, round_trip)
    after = time.monotonic_ns()
    for rank in (0, 1):
        mine = [event for event in events if event.rank == rank]
        for operation in ("dispatch", "combine"):
            begun = [e.stage for e in mine if e.operation == operation and e.point == "begin"]
            ended = [e.stage for e in mine if e.operation == operation and e.point == "end"]
            assert set(begun) == set(ended)
            assert begun
            assert set(begun) <= set(moelink.STAGES)
        times = [event.time_ns for event in mine]
        assert before <= min(times)
        assert max(times) <= after
    dispatch_stages = {e.stage for e in events if e.operation == "dispatch"}
    assert {"route", "exchange", "place", "send", "signal", "receive"} <= dispatch_stages
    assert "reduce" in {e.stage for e in events if e.operation == "combine"}


def test_removed_hook_sees_nothing(events):
    moelink.set_trace_hook(None)
    run_threads(1, round_trip)
    assert events == []


def test_hook_that_raises_is_reported_and_ignored(capsys, monkeypatch):
    reports = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reports.append(report.exc_type))
    moelink.set_trace_hook(lambda event: 1 / 0)
    try:
        run_threads(1, round_trip)
    finally:
        moelink.set_trace_hook(None)
    assert ZeroDivisionError in reports


def test_hook_must_be_callable():
    with pytest.raises(TypeError, match="callable or None"):
        moelink.set_trace_hook(3)


def test_exit_with_hook_and_work_in_flight_is_clean():
    script = textwrap.dedent("""
        import threading
        import numpy as np
        import moelink

        moelink.set_trace_hook(lambda event: None)
        groups = moelink.Group.threads(2)

        def work(group):
            buffer = moelink.Buffer(group, timeout=20)
            x = np.ones((512, 256), np.float32)
            while True:
                recv_x, handle = buffer.dispatch(x, np.zeros((512, 1), np.int64), async_finish=True)
                buffer.combine(recv_x, handle, async_finish=True)

        for group in groups:
            threading.Thread(target=work, args=(group,), daemon=True).start()
        import time
        time.sleep(0.3)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "leak" not in done.stderr
    assert "terminate" not in done.stderr


def test_exit_with_open_buffers_prints_nothing():
    script = textwrap.dedent("""
        import numpy as np
        import moelink

        group, = moelink.Group.threads(1)
        buffer = moelink.Buffer(group)
        result = buffer.dispatch(np.ones((2, 4), np.float32), np.zeros((2, 1), np.int64))
        kept = [group, buffer, result, moelink.Event()]
        kept.append(kept)
        moelink.set_trace_hook(kept.append)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
