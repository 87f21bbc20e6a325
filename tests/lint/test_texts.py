"""File sizes, names, conditional compilation and forbidden words are found, their like are not."""

import pytest
from lint import texts


@pytest.mark.parametrize(
    ("path", "limit"),
    [("src/base/log.cpp", 500), ("include/moelink/a.hpp", 250), ("python/moelink/a.py", 500)],
)
def test_file_length_is_limited_by_kind(rules_found, path, limit):
    assert rules_found(texts.check, {path: "int a;\n" * limit}) == []
    assert rules_found(texts.check, {path: "int a;\n" * (limit + 1)}) == ["file-length"]


def test_file_length_does_not_limit_documents(rules_found):
    assert rules_found(texts.check, {"docs/protocol.md": "line\n" * 2000}) == []


@pytest.mark.parametrize(
    "path", ["src/base/utils.cpp", "python/moelink/_common.py", "tests/helpers/a.hpp"]
)
def test_file_name_that_says_nothing_is_rejected(rules_found, path):
    assert rules_found(texts.check, {path: ""}) == ["name"]


def test_file_name_that_contains_a_vague_word_inside_another_is_accepted(rules_found):
    assert rules_found(texts.check, {"src/base/commonwealth.cpp": ""}) == []


@pytest.mark.parametrize(
    ("word", "rule"),
    [
        ("TO" + "DO: later", "leftover"),
        ("FIX" + "ME", "leftover"),
        ("see /ro" + "ot/cache/x", "machine-path"),
        ("see /wo" + "rk/main", "machine-path"),
        ("see /ho" + "me/anna/x", "machine-path"),
        ("as in iss" + "ue 12", "issue-number"),
    ],
)
def test_word_that_does_not_belong_in_a_file_is_rejected(rules_found, word, rule):
    assert rules_found(texts.check, {"README.md": f"good line\n{word}\n"}) == [rule]


def test_word_that_resembles_a_forbidden_one_is_accepted(rules_found):
    text = "src/work/x, https://a.org/work/, mastodon, /usr/share/common-licenses\n"
    assert rules_found(texts.check, {"README.md": text}) == []


def test_conditional_compilation_is_rejected_outside_base_and_device(rules_found):
    text = "#if defined(__x86_64__)\n#endif\n"
    assert rules_found(texts.check, {"src/symm/a.cpp": text}) == ["conditional"]
    assert rules_found(texts.check, {"src/base/a.cpp": text}) == []


def test_conditional_compilation_accepts_the_idiom_of_highway(rules_found):
    text = "#if HWY_ONCE\n#endif\n"
    assert rules_found(texts.check, {"src/backend/cpu/simd/a.cpp": text}) == []


def test_conditional_compilation_is_limited_in_density(rules_found):
    text = "#ifdef A\n#endif\n" * 4
    assert rules_found(texts.check, {"src/base/a.cpp": text}) == ["conditional-density"]
    padding = {f"src/base/{index}.cpp": "int a;\n" * 450 for index in range(3)}
    assert rules_found(texts.check, {"src/base/a.cpp": text, **padding}) == []
