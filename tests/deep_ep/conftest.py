"""Makes the helper modules importable, and deep_ep where it is not installed."""

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

for folder in (HERE, ROOT / "tests" / "python"):
    sys.path.insert(0, str(folder))
if importlib.util.find_spec("deep_ep") is None:
    sys.path.insert(0, str(ROOT / "python" / "deep_ep" / "src"))
