"""The live check of `moelink doctor`: a dispatch and a combine between rank processes."""

from __future__ import annotations

from typing import Any

import numpy as np

from moelink.cli import ranks
from moelink.cli.doctor_check import NO, OK, Check

NUM_RANKS = 2
_NUM_TOKENS = 8
_HIDDEN = 64
_TIMEOUT_S = 20.0
_LIMIT_S = 60.0


def run_rank(group: Any, arguments: Any, progress: ranks.Progress) -> dict[str, Any]:
    """Sends every token to every rank and sums what comes back: the result is known exactly."""
    import moelink

    row = np.arange(_HIDDEN, dtype=np.float32)
    x = np.stack([1000.0 * group.rank + token + row for token in range(_NUM_TOKENS)])
    topk_idx = np.tile(np.arange(group.num_ranks, dtype=np.int64), (_NUM_TOKENS, 1))
    with moelink.Buffer(group, hidden_bytes=x.nbytes // _NUM_TOKENS) as buffer:
        recv_x, handle = buffer.dispatch(np.ascontiguousarray(x, dtype=np.float32), topk_idx)
        expected = np.concatenate(
            [
                np.stack([1000.0 * rank + token + row for token in range(_NUM_TOKENS)])
                for rank in range(group.num_ranks)
            ]
        ).astype(np.float32)
        dispatched = np.array_equal(np.asarray(recv_x), expected)
        combined_x = np.asarray(buffer.combine(recv_x, handle))
        combined = np.array_equal(combined_x, (x * group.num_ranks).astype(np.float32))
        del recv_x, combined_x
    return {"dispatch": dispatched, "combine": combined}


def check() -> Check:
    name = "self-test"
    job = ranks.LocalJob(
        "moelink.cli.self_test:run_rank",
        None,
        num_ranks=NUM_RANKS,
        timeout_s=_TIMEOUT_S,
        limit_s=_LIMIT_S,
    )
    try:
        results = ranks.run_processes(job)
    except (ranks.RanksFailedError, OSError) as error:
        return Check(name, NO, str(error), "the lines above may say why", required=True)
    wrong = [
        f"{operation} of rank {rank}"
        for rank, result in enumerate(results)
        for operation, right in result.items()
        if not right
    ]
    if wrong:
        return Check(name, NO, f"wrong result: {', '.join(wrong)}", required=True)
    return Check(name, OK, f"{NUM_RANKS} rank processes: dispatch and combine right", required=True)
