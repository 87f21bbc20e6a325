"""Command line of the demo."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moelink.cli import exit_codes

NUM_EXPERTS = 16
BATCH_SIZE = 16
_QUICK_STEPS = 8
_QUICK_LENGTH = 24


@dataclass(frozen=True)
class DemoOptions:
    """What the demo is asked to do."""

    num_ranks: int
    num_steps: int
    seed: int
    out: Path
    num_written: int  # characters that every rank writes in the end


def parse(arguments: Sequence[str] | None) -> DemoOptions:
    """Options of a command line; SystemExit(2) when it is wrong."""
    parser = _make_parser()
    given = parser.parse_args(arguments)
    choices = [n for n in range(1, NUM_EXPERTS + 1) if NUM_EXPERTS % n == 0]
    if given.ranks not in choices:
        parser.error(f"--ranks {given.ranks}: {NUM_EXPERTS} experts need one of {choices}")
    if given.steps is not None and given.steps < 1:
        parser.error(f"--steps {given.steps}: expected at least 1")
    if given.out.suffix.lower() not in (".png", ".pdf", ".svg"):
        parser.error(f"--out {given.out}: expected a name that ends in .png, .pdf or .svg")
    if not given.out.resolve().parent.is_dir():
        parser.error(f"--out {given.out}: its folder does not exist")
    default_steps = _QUICK_STEPS if given.quick else 500
    return DemoOptions(
        num_ranks=given.ranks,
        num_steps=default_steps if given.steps is None else given.steps,
        seed=given.seed,
        out=given.out,
        num_written=_QUICK_LENGTH if given.quick else 160,
    )


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moelink demo",
        description=(
            "Trains a small mixture-of-experts language model on the licence texts of this "
            "machine, once in a single process and once with its experts spread over several "
            "ranks, checks that both learn the same, and draws a picture of it."
        ),
        epilog=exit_codes.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--ranks", type=int, default=4, help="expert-parallel processes (%(default)s)"
    )
    parser.add_argument("--steps", type=int, help="training steps (500)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (%(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("moelink_demo.png"), help="the picture (%(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="a few steps only, to see it work")
    return parser
