"""Skips everything where there is no GPU, and keeps pools of ranks for the tests."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import moelink
import pytest
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
if importlib.util.find_spec("deep_ep") is None:
    sys.path.insert(0, str(HERE.parents[1] / "python" / "deep_ep" / "src"))

from gpu_ranks import RankPool  # noqa: E402


def reason_to_skip() -> str | None:
    if not torch.cuda.is_available():
        return "no GPU: torch.cuda.is_available() is False"
    if not moelink.has_cuda_backend():
        return "this build of moelink has no CUDA backend"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = reason_to_skip()
    if reason is None:
        return
    for item in items:  # those of other folders too
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", params=[2, 4], ids=["2ranks", "4ranks"])
def ranks(request: pytest.FixtureRequest) -> Iterator[RankPool]:
    pool = RankPool(request.param)
    yield pool
    pool.end()
