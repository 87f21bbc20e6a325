"""The demo: a small MoE model learns on expert-parallel ranks what it learns in one process."""

from moelink.demo.main import main

__all__ = ["main"]
