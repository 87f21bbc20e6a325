"""The text files of the work tree: what git tracks or would track."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CPP_SUFFIXES = (".hpp", ".cpp", ".cuh", ".cu")

# Names and signatures below these are fixed by the interface that the package reproduces.
FIXED_INTERFACES = ("python/deep_ep/src/",)


@dataclass
class SourceTree:
    root: Path
    files: dict[str, str] = field(default_factory=dict)  # path from the root -> text

    @classmethod
    def of_work_tree(cls, root: Path) -> "SourceTree":
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listing = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
        tree = cls(root)
        for path in sorted(set(filter(None, listing.stdout.split("\0")))):
            if (root / path).is_file():
                tree.add_file(path)
        return tree

    def add_file(self, path: str) -> None:
        with contextlib.suppress(UnicodeDecodeError):  # a picture or another binary file
            self.files[path] = (self.root / path).read_text(encoding="utf-8")

    def with_suffix(self, *suffixes: str) -> Iterator[tuple[str, str]]:
        return ((path, text) for path, text in self.files.items() if path.endswith(suffixes))

    def cpp_files(self) -> Iterator[tuple[str, str]]:
        return self.with_suffix(*CPP_SUFFIXES)
