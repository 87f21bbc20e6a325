"""Length, nesting and number of parameters of every C++ and Python function."""

import ast
from collections.abc import Iterator

from .cpp_functions import Function, find_functions
from .source_tree import FIXED_INTERFACES, SourceTree
from .violation import Violation

MAX_LINES = 60
MAX_TEST_LINES = 50
MAX_PARAMETERS = 6
MAX_NESTING = 4

_NESTING_STATEMENTS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match, ast.AsyncFor)


def check(tree: SourceTree) -> Iterator[Violation]:
    for path, text in tree.cpp_files():
        for function in find_functions(text):
            yield from _check_function(path, function)
    for path, text in tree.with_suffix(".py"):
        for function in _python_functions(text):
            yield from _check_function(path, function)


def _check_function(path: str, function: Function) -> Iterator[Violation]:
    max_lines = MAX_TEST_LINES if path.startswith("tests/") else MAX_LINES
    measures = (
        ("function-length", function.num_lines if function.has_body else 0, max_lines, "lines"),
        ("parameters", function.num_parameters, MAX_PARAMETERS, "parameters"),
        ("nesting", function.max_nesting, MAX_NESTING, "levels of nesting"),
    )
    for rule, value, limit, unit in measures:
        if rule == "parameters" and path.startswith(FIXED_INTERFACES):
            continue
        if value > limit:
            message = f"{function.name}: {value} {unit}, limit {limit}"
            yield Violation(path, function.first_line, rule, message)


def _python_functions(text: str) -> Iterator[Function]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Function(
                name=node.name,
                first_line=node.lineno,
                last_line=node.end_lineno or node.lineno,
                num_parameters=_num_positional_parameters(node),
                max_nesting=_nesting(node.body),
            )


def _num_positional_parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Keyword-only parameters are named at every call, so they do not count."""
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def _nesting(body: list[ast.stmt]) -> int:
    return max((_nesting_of_statement(statement) for statement in body), default=0)


def _nesting_of_statement(statement: ast.stmt) -> int:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return 0  # measured on its own
    if not isinstance(statement, _NESTING_STATEMENTS):
        return 0
    inner = _nesting(_first_body(statement))
    return max(1 + inner, _nesting_of_alternatives(statement))


def _first_body(statement: ast.stmt) -> list[ast.stmt]:
    if isinstance(statement, ast.Match):
        return [inner for case in statement.cases for inner in case.body]
    return list(getattr(statement, "body", []))


def _nesting_of_alternatives(statement: ast.stmt) -> int:
    """`elif` stands beside its `if`; `else`, `except` and `finally` hold one level more."""
    alternatives = list(getattr(statement, "orelse", []))
    is_elif = len(alternatives) == 1 and isinstance(alternatives[0], ast.If)
    if isinstance(statement, ast.If) and is_elif:
        return _nesting_of_statement(alternatives[0])
    alternatives += getattr(statement, "finalbody", [])
    for handler in getattr(statement, "handlers", []):
        alternatives += handler.body
    return 1 + _nesting(alternatives) if alternatives else 0
