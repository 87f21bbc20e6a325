"""The result of one check of `moelink doctor`."""

from __future__ import annotations

from dataclasses import dataclass

OK = "ok"
LIMITED = "limited"
NO = "no"


@dataclass(frozen=True)
class Check:
    """`finding` says what was seen; `advice` what to do about it (empty: nothing)."""

    name: str
    status: str  # OK, LIMITED or NO
    finding: str
    advice: str = ""
    required: bool = False  # NO means that the CPU backend cannot work here


def size_text(num_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:,.4g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:,.4g} GiB"
