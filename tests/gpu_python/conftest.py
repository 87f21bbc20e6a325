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

from gpu_ranks import DEVICE, RankPool  # noqa: E402

MAX_RANKS = 8


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
        runs_here = DEVICE == "cpu" and item.get_closest_marker("any_device") is not None
        if HERE in item.path.parents and not runs_here:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "any_device: runs on CPU tensors too, with MOELINK_TEST_DEVICE=cpu"
    )


@pytest.fixture(scope="session")
def pool() -> Iterator[RankPool]:
    """For tests that say how many ranks they need."""
    pool = RankPool(MAX_RANKS)
    yield pool
    pool.end()


@pytest.fixture(scope="session", params=[2, 4], ids=["2ranks", "4ranks"])
def ranks(request: pytest.FixtureRequest) -> Iterator[RankPool]:
    pool = RankPool(request.param)
    yield pool
    pool.end()
