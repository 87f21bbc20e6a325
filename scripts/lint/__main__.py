"""Runs every check on every file of the work tree: `PYTHONPATH=scripts python -m lint [ROOT]`."""

import sys
from pathlib import Path

from . import exception_list, function_limits, layers, texts
from .source_tree import SourceTree
from .violation import Violation


def find_violations(tree: SourceTree) -> list[Violation]:
    checks = [layers.check, function_limits.check, texts.check]
    found = [violation for check in checks for violation in check(tree)]
    return exception_list.apply(tree, found)


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd()
    tree = SourceTree.of_work_tree(root)
    violations = find_violations(tree)
    for violation in sorted(violations):
        print(violation)
    print(f"{len(tree.files)} files checked, {len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
