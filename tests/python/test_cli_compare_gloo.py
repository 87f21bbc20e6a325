"""bench/compare_gloo.py: runs, verifies both sides, writes its figures; speed is not judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch.distributed")

SCRIPT = Path(__file__).parents[2] / "bench" / "compare_gloo.py"


@pytest.mark.timeout(300)
def test_comparison_verifies_all_results_and_writes_its_figures(tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    shape = ["--ranks", "3", "--tokens", "40", "--small-tokens", "3", "--hidden", "128"]
    routing = ["--topk", "2", "--experts", "6", "--rounds", "3", "--small-rounds", "3"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--output", str(output), *shape, *routing],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(output.read_text())
    assert document["verified"]
    assert {"moelink_ll", "moelink_ll_per_expert"} <= set(document["median_us"]["small"])
    assert document["ll_per_expert_us"] > 0
    figures = ("ratio", "memcpy_share", "small_ratio", "memory_ratio")
    for figure in (*figures, "ll_small_ratio", "ll_over_ht"):
        assert document[figure] > 0
        assert isinstance(document["goals_met"][figure], bool)
    assert {"machine", "date", "command", "median_us"} <= set(document)
