"""The command line itself: help, version, wrong use, and what this version cannot do."""

from __future__ import annotations

import sys
import types

import moelink
import pytest
from moelink.cli import exit_codes, main
from moelink.cli.bench_options import BenchOptions, shape_problems


def exit_code_of(*arguments: str) -> int:
    """Exit code of `moelink ARGUMENTS`, by return or by argparse."""
    try:
        return main.main(list(arguments))
    except SystemExit as leaving:
        assert isinstance(leaving.code, int)
        return leaving.code


def test_version_names_the_package_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of("--version") == exit_codes.OK
    assert f"moelink {moelink.__version__} " in capsys.readouterr().out


def test_no_command_prints_help_and_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of() == exit_codes.USAGE
    assert "moelink doctor" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["bench", "--help"], ["doctor", "--help"]])
def test_help_shows_examples_and_exit_codes(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(*arguments) == exit_codes.OK
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "exit codes:" in text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--ranks", "0"], "must be at least 1"),
        (["--tokens", "-1"], "must not be negative"),
        (["--tokens", "many"], "must be a whole number"),
        (["--timeout", "0"], "must be more than 0"),
        (["--dtype", "fp4"], "invalid choice"),
        (["--topk", "65"], "--topk 65 is more than --experts 64"),
        (["--hidden", "12"], "rows of 24 bytes"),
        (["--hidden", "144", "--dtype", "fp8"], "must be a multiple of 128"),
        (["--ranks", "3"], "--experts 64 is not a multiple of 3 ranks"),
        (["--ranks", "4", "--nodes", "3"], "do not split evenly"),
        (["--mode", "ll", "--network-path", "direct"], "needs --backend cpu and --mode ht"),
        (["--mode", "ll", "--layout", "compact"], "use per-expert or per-rank"),
        (["--layout", "per-rank"], "use compact or expert-major"),
        (["--mode", "ll", "--dtype", "fp16"], "use bf16 or fp8"),
        (["--mode", "ll", "--hidden", "192"], "must be a multiple of 128 with --mode ll"),
        (["--mode", "ll", "--tokens", "4097"], "more than the 4096"),
        (["--mode", "ll", "--alignment", "8"], "no meaning with --mode ll"),
        (["--json", "/nowhere/at/all.json"], "its folder does not exist"),
    ],
)
def test_bench_explains_a_wrong_command_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of("bench", *arguments) == exit_codes.USAGE
    assert complaint in capsys.readouterr().err


def test_bench_names_all_problems_at_once() -> None:
    options = BenchOptions(topk=9, experts=8, hidden=100, dtype="int8")
    assert len(shape_problems(options, num_ranks=3)) == 4


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--backend", "cuda"], "no CUDA backend"),
        (["--backend", "cuda", "--mode", "ll"], "no CUDA backend"),
    ],
)
def test_bench_says_what_this_version_cannot_do(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of("bench", *arguments) == exit_codes.CANNOT
    assert reason in capsys.readouterr().err


def test_demo_gets_its_arguments_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    demo = types.ModuleType("moelink.demo.main")
    demo.main = lambda arguments: seen.append(arguments) or 1  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "moelink.demo.main", demo)
    assert exit_code_of("demo", "--steps", "3", "--help") == 1
    assert seen == [["--steps", "3", "--help"]]
