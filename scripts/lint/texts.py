"""File sizes, file names, conditional compilation, and words that do not belong in a file."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from .source_tree import CPP_SUFFIXES, FIXED_INTERFACES, SourceTree
from .violation import Violation

MAX_SOURCE_LINES = 500
MAX_PUBLIC_HEADER_LINES = 250
MAX_CONDITIONALS_PER_1000_LINES = 3

_LIMITED_SUFFIXES = (*CPP_SUFFIXES, ".py", ".pyi", ".sh", ".cmake")
_VAGUE_NAMES = {"util", "utils", "common", "misc", "manager", "managers", "helper", "helpers"}

_CONDITIONAL = re.compile(r"^[ \t]*#[ \t]*if(?:def|ndef)?\b(.*)$", re.MULTILINE)
# Highway includes a file once per SIMD target and tells the passes apart by its own macros.
_HIGHWAY_IDIOM = re.compile(r"\bHWY_|\bHIGHWAY_")
_CONDITIONALS_ALLOWED = ("src/base/", "src/device/", "include/moelink/host_device.hpp")

# The bracket keeps each pattern from finding itself.
_FORBIDDEN_TEXT = {
    "leftover": re.compile(r"\b(?:TOD[O]|FIXM[E]|XX[X])\b"),
    "machine-path": re.compile(r"(?<![\w.])/(?:root|work|farm|Users|home/\w+)/"),
    "issue-number": re.compile(r"\b(?:[Ii]ssue|[Pp]ull request)s? #?\d+"),
}


def check(tree: SourceTree) -> Iterator[Violation]:
    for path, text in tree.files.items():
        yield from _check_name(path)
        yield from _check_length(path, text)
        yield from _check_words(path, text)
    yield from _check_conditionals(tree)


def _check_name(path: str) -> Iterator[Violation]:
    if path.startswith(FIXED_INTERFACES):
        return
    for part in PurePosixPath(path).parts:
        vague = _VAGUE_NAMES.intersection(re.split(r"[^a-z]+", part.lower()))
        if vague:
            yield Violation(path, 1, "name", f"'{part}' says nothing: avoid '{vague.pop()}'")


def _check_length(path: str, text: str) -> Iterator[Violation]:
    if not path.endswith(_LIMITED_SUFFIXES):
        return
    is_public = path.startswith("include/")
    limit = MAX_PUBLIC_HEADER_LINES if is_public else MAX_SOURCE_LINES
    num_lines = len(text.splitlines())
    if num_lines > limit:
        yield Violation(path, num_lines, "file-length", f"{num_lines} lines, limit {limit}")


def _check_words(path: str, text: str) -> Iterator[Violation]:
    for number, line in enumerate(text.splitlines(), start=1):
        for rule, pattern in _FORBIDDEN_TEXT.items():
            match = pattern.search(line)
            if match:
                yield Violation(path, number, rule, f"'{match[0]}' does not belong in a file")


def _check_conditionals(tree: SourceTree) -> Iterator[Violation]:
    num_lines = num_conditionals = 0
    for path, text in tree.cpp_files():
        if not path.startswith(("src/", "include/")):
            continue
        num_lines += len(text.splitlines())
        for match in _CONDITIONAL.finditer(text):
            if _HIGHWAY_IDIOM.search(match[1]):
                continue
            num_conditionals += 1
            if not path.startswith(_CONDITIONALS_ALLOWED):
                line = text.count("\n", 0, match.start()) + 1
                yield Violation(path, line, "conditional", "#if only in src/base and src/device")
    limit = max(1, MAX_CONDITIONALS_PER_1000_LINES * num_lines // 1000)
    if num_conditionals > limit:
        message = f"{num_conditionals} #if in {num_lines} lines, limit {limit}"
        yield Violation("src", 1, "conditional-density", message)
