"""Makes the checks of scripts/lint importable and builds small trees for them to look at."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from lint.source_tree import SourceTree
from lint.violation import Violation

Check = Callable[[SourceTree], object]


@pytest.fixture
def rules_found() -> Callable[..., list[str]]:
    """rules_found(check, {path: text}) -> the rules that the check says are broken."""

    def run(check: Check, files: dict[str, str]) -> list[str]:
        found = list(check(SourceTree(Path("."), files)))
        assert all(isinstance(violation, Violation) for violation in found)
        return [violation.rule for violation in found]

    return run
