"""One finding of a check."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Violation:
    path: str  # relative to the root, with forward slashes
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: [{self.rule}] {self.message}"
