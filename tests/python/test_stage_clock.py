"""The stage clock, which only GPUs keep."""

import moelink
import numpy as np


def test_cpu_buffers_have_no_stage_times() -> None:
    with moelink.Buffer(moelink.Group.threads(1)[0], stage_clock=True) as buffer:
        x = np.ones((2, 16), np.float32)
        buffer.dispatch(x, np.zeros((2, 1), np.int64))
        assert buffer.last_stage_times() == []
