"""Makes the helper modules beside the tests importable, also in child processes."""

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

# Every example starts ranks, so its time says nothing about the code under test.
settings.register_profile(
    "ranks",
    deadline=None,
    max_examples=80,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("ranks")
