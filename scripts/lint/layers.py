"""The one-way rule: which folder may include which."""

import posixpath
import re
from collections.abc import Iterator

from .source_tree import SourceTree
from .violation import Violation

INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]', re.MULTILINE)

# Three columns that never include one another stand between `protocol` and `backend`.
_FOUNDATION = ("base", "protocol")
_COLUMNS = (("device", "kernels"), ("bootstrap", "symm"), ("transport", "proxy", "network"))


def _layer_table() -> dict[str, set[str]]:
    """For each folder of src/: the folders that it may include, itself among them."""
    table = {"base": {"base"}, "protocol": {"base", "protocol"}}
    for column in _COLUMNS:
        for height, folder in enumerate(column, start=1):
            table[folder] = {*_FOUNDATION, *column[:height]}
    below_backend = set(table)
    table["backend"] = below_backend | {"backend"}
    table["api"] = below_backend | {"backend", "api"}
    return table


MAY_INCLUDE = _layer_table()

# Folders whose subfolders are alternatives to one another, such as backend/cpu and backend/cuda.
_ALTERNATIVES = ("backend", "symm", "transport")

# Public headers that need the whole library behind them; the others are leaves that all may use.
_FACADE = ("moelink/moelink.hpp", "moelink/buffer.hpp")
_FACADE_USERS = ("api",)

_ABOVE_API = ("python", "tests", "bench")  # these may include all of src/

_QUOTED_SYSTEM_HEADERS = ("hwy/",)  # Highway's own documentation quotes them

# The protocol is pure: it neither waits nor talks to the system.
_IMPURE = {"condition_variable", "filesystem", "fstream", "future", "iostream", "mutex", "thread"}


def check(tree: SourceTree) -> Iterator[Violation]:
    for path, text in tree.cpp_files():
        for match in INCLUDE.finditer(text):
            problem = _problem_of_include(tree, path, match[1], match[2])
            if problem:
                line = text.count("\n", 0, match.start(2)) + 1
                yield Violation(path, line, "layers", problem)


def _problem_of_include(tree: SourceTree, path: str, quote: str, target: str) -> str | None:
    parts = path.split("/")
    if quote == "<" or target.startswith(_QUOTED_SYSTEM_HEADERS):
        return _problem_of_system_include(parts, target)
    if target.startswith("moelink/"):
        if f"include/{target}" not in tree.files:
            return f'"{target}" does not exist below include/'
        is_below_api = parts[0] == "src" and parts[1] not in _FACADE_USERS
        if is_below_api and target in _FACADE:
            return f"src/{parts[1]} may not include the facade {target}"
        return None
    if parts[0] == "src":
        return _problem_inside_src(tree, parts, target)
    if parts[0] in ("include", "examples"):
        return f'{parts[0]}/ may include only public headers, not "{target}"'
    if parts[0] in _ABOVE_API and not _exists_above_api(tree, path, target):
        return f'"{target}" does not exist below src/, {parts[0]}/ or include/'
    return None


def _problem_of_system_include(parts: list[str], target: str) -> str | None:
    if target.startswith("moelink/"):
        return f'write #include "{target}" with quotes'
    is_protocol = parts[:2] == ["src", "protocol"]
    if is_protocol and (target in _IMPURE or target.startswith("sys/") or target == "unistd.h"):
        return f"the protocol is pure and may not include <{target}>"
    return None


def _problem_inside_src(tree: SourceTree, parts: list[str], target: str) -> str | None:
    if f"src/{target}" not in tree.files:
        return f'"{target}" does not exist below src/; includes are relative to src/ or include/'
    layer, target_parts = parts[1], target.split("/")
    allowed = MAY_INCLUDE.get(layer)
    if allowed is None:
        return f"src/{layer} is not a known layer; add it to the table of this check"
    if target_parts[0] not in allowed:
        return f"src/{layer} may not include src/{target_parts[0]}"
    are_nested = len(parts) > 3 and len(target_parts) > 2
    are_alternatives = layer in _ALTERNATIVES and target_parts[0] == layer and are_nested
    if are_alternatives and parts[2] != target_parts[1]:
        return f"src/{layer}/{parts[2]} may not include its alternative {target_parts[1]}"
    return None


def _is_beside(tree: SourceTree, path: str, target: str) -> bool:
    beside = posixpath.join(posixpath.dirname(path), target)
    return ".." not in target and beside in tree.files


def _exists_above_api(tree: SourceTree, path: str, target: str) -> bool:
    folder = path.split("/", maxsplit=1)[0]
    places = (f"src/{target}", f"{folder}/{target}")
    return _is_beside(tree, path, target) or any(place in tree.files for place in places)
