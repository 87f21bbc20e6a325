"""The exception list forgives what it names, demands that it is needed, and may only shrink."""

import subprocess

import pytest
from lint import exception_list
from lint.source_tree import SourceTree
from lint.violation import Violation

LONG_FILE = Violation("src/a.cpp", 501, "file-length", "501 lines, limit 500")
ENTRY = "src/a.cpp | file-length | the table of cases is easier to read in one piece\n"


def git(root, *arguments):
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "--quiet")
    write_list(tmp_path, "# none yet\n")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "start")
    return tmp_path


def write_list(root, text):
    (root / exception_list.LIST_PATH).parent.mkdir(parents=True, exist_ok=True)
    (root / exception_list.LIST_PATH).write_text(text)


def apply(root, found):
    return exception_list.apply(SourceTree.of_work_tree(root), found)


def test_exception_forgives_the_violation_it_names_where_it_has_no_history(tmp_path):
    git(tmp_path, "init", "--quiet")
    write_list(tmp_path, ENTRY)
    other = Violation("src/b.cpp", 1, "file-length", "too long")
    assert apply(tmp_path, [LONG_FILE, other]) == [other]


def test_exception_that_nothing_needs_is_rejected(tmp_path):
    git(tmp_path, "init", "--quiet")
    write_list(tmp_path, ENTRY)
    assert [violation.rule for violation in apply(tmp_path, [])] == ["exception-list"]


def test_exception_without_a_reason_is_rejected(tmp_path):
    git(tmp_path, "init", "--quiet")
    write_list(tmp_path, "src/a.cpp | file-length |\n")
    assert [v.rule for v in apply(tmp_path, [LONG_FILE])] == ["file-length", "exception-list"]


def test_exception_added_later_is_rejected_before_and_after_the_commit(repository):
    write_list(repository, ENTRY)
    assert [v.rule for v in apply(repository, [LONG_FILE])] == ["exception-list"]
    git(repository, "commit", "--quiet", "--all", "--message", "add an exception")
    assert [v.rule for v in apply(repository, [LONG_FILE])] == ["exception-list"]
