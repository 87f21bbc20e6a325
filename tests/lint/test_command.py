"""The command `python -m lint`: exit status and output on a clean and on a bad tree."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"


def run_lint(root):
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    command = [sys.executable, "-m", "lint", str(root)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_lint_succeeds_on_a_clean_tree(tmp_path):
    (tmp_path / "a.py").write_text('"""A module."""\n')
    done = run_lint(tmp_path)
    assert (done.returncode, done.stdout) == (0, "1 files checked, 0 violations\n")


def test_lint_fails_and_says_where_on_a_bad_tree(tmp_path):
    (tmp_path / "utils.py").write_text('"""A module."""\n\n# TO' + "DO: rename\n")
    done = run_lint(tmp_path)
    assert done.returncode == 1
    assert "utils.py:1: [name]" in done.stdout
    assert "utils.py:3: [leftover]" in done.stdout
