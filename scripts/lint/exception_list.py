"""Agreed exceptions: a violation that the list names is forgiven, and the list may only shrink."""

import subprocess
from pathlib import Path

from .source_tree import SourceTree
from .violation import Violation

LIST_PATH = "scripts/lint/exceptions.txt"

Entry = tuple[str, str]  # (path, rule)


def apply(tree: SourceTree, found: list[Violation]) -> list[Violation]:
    """Takes the excepted violations out; adds one for each entry that is malformed or useless."""
    entries, problems = _parse(tree.files.get(LIST_PATH, ""))
    matched = {(violation.path, violation.rule) for violation in found}
    earlier = _earlier_entries(tree.root)
    for entry, line in entries.items():
        if entry not in matched:
            problems.append(_problem(line, f"{entry} is no longer needed: remove the line"))
        if earlier is not None and entry not in earlier:
            problems.append(_problem(line, f"{entry} is new, but the list may only shrink"))
    return [v for v in found if (v.path, v.rule) not in entries] + problems


def _problem(line: int, message: str) -> Violation:
    return Violation(LIST_PATH, line, "exception-list", message)


def _parse(text: str) -> tuple[dict[Entry, int], list[Violation]]:
    entries: dict[Entry, int] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [part.strip() for part in line.split("|")]
        if len(fields) != 3 or not all(fields):
            problems.append(_problem(number, "expected 'path | rule | reason'"))
        else:
            entries[fields[0], fields[1]] = number
    return entries, problems


def _earlier_entries(root: Path) -> set[Entry] | None:
    """The entries of the version before this one; None where the list has no history."""
    for revision in _earlier_revisions(root):
        shown = _git(root, "show", f"{revision}:{LIST_PATH}")
        if shown is not None:
            return set(_parse(shown)[0])
    return None


def _earlier_revisions(root: Path) -> list[str]:
    is_edited = _git(root, "diff", "--quiet", "HEAD", "--", LIST_PATH) is None
    return ["HEAD"] if is_edited else ["HEAD^"]


def _git(root: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None
