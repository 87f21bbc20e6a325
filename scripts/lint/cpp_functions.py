"""Finds the functions of a C++ file: where they start and end, their parameters, their nesting.

A scanner of brackets, not a parser: each `{` is classified by the tokens between it and the end of
the statement before it. That is enough for code in the format that clang-format enforces.
"""

from dataclasses import dataclass, field
from enum import Enum, auto

from .cpp_tokens import Token, tokenize

_CONTROL = {"if", "for", "while", "switch", "do", "else", "try", "catch"}
_TYPE_KEYWORDS = {"class", "struct", "union", "enum"}
_NOT_A_NAME = {"noexcept", "requires", "decltype", "alignas", "explicit", "__attribute__", "sizeof"}
_NOT_A_DECLARATION = {"using", "typedef", "static_assert", "friend", "return", "extern"}
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class Scope(Enum):
    DECLARATIONS = auto()  # file, namespace or class
    FUNCTION = auto()
    BLOCK = auto()  # control statement, plain block or lambda inside a function
    INITIALIZER = auto()


@dataclass
class Function:
    name: str
    first_line: int
    last_line: int
    num_parameters: int
    max_nesting: int = 0
    has_body: bool = True

    @property
    def num_lines(self) -> int:
        return self.last_line - self.first_line + 1


@dataclass
class _Open:
    """A scope that is open while the scanner is inside it."""

    scope: Scope
    head: list[Token] = field(default_factory=list)  # of the statement that has begun in it
    function: Function | None = None
    nesting: int = 0
    num_parentheses: int = 0


def find_functions(text: str) -> list[Function]:
    return _Scanner().scan(tokenize(text))


class _Scanner:
    def __init__(self) -> None:
        self._found: list[Function] = []
        self._stack = [_Open(Scope.DECLARATIONS)]

    def scan(self, tokens: list[Token]) -> list[Function]:
        for token in tokens:
            if token.text == "{":
                self._open(token)
            elif token.text == "}":
                self._close(token)
            else:
                self._continue_statement(token)
        return self._found

    def _open(self, token: Token) -> None:
        outer = self._stack[-1]
        scope = _classify(outer)
        inner = _Open(scope, function=outer.function, nesting=outer.nesting)
        if scope is Scope.FUNCTION:
            inner.function = _describe_function(outer.head)
            inner.nesting = 0
        elif scope is Scope.BLOCK and inner.function is not None:
            inner.nesting += 1
            inner.function.max_nesting = max(inner.function.max_nesting, inner.nesting)
        outer.head.append(token)
        self._stack.append(inner)

    def _close(self, token: Token) -> None:
        if len(self._stack) == 1:
            return  # unbalanced, for example by macros: go on with what is left
        inner = self._stack.pop()
        outer = self._stack[-1]
        if inner.scope is Scope.FUNCTION and inner.function is not None:
            inner.function.last_line = token.line
            self._found.append(inner.function)
        outer.head.append(token)
        # After the body of a function, class or control statement a new statement begins; after
        # an initializer or inside parentheses the old one goes on.
        goes_on = inner.scope is Scope.INITIALIZER or outer.num_parentheses > 0
        if not goes_on and not _is_lambda(outer.head[:-2]):
            outer.head.clear()

    def _continue_statement(self, token: Token) -> None:
        current = self._stack[-1]
        if token.text in "([":
            current.num_parentheses += 1
        elif token.text in ")]":
            current.num_parentheses -= 1
        if token.text == ";" and current.num_parentheses <= 0:
            if current.scope is Scope.DECLARATIONS:
                self._note_declaration(current.head)
            current.head.clear()
        elif token.text == ":" and _ends_label(current.head):
            current.head.clear()
        else:
            current.head.append(token)

    def _note_declaration(self, head: list[Token]) -> None:
        head = _without_template(head)
        words = {token.text for token in head if token.is_word}
        if not head or _NOT_A_DECLARATION & words or _has_assignment_before_parameters(head):
            return
        function = _describe_function(head)
        if function is not None:
            function.has_body = False
            function.last_line = head[-1].line
            self._found.append(function)


def _classify(outer: _Open) -> Scope:
    head = _without_template(outer.head)
    if outer.scope is Scope.INITIALIZER or outer.num_parentheses > 0:
        return Scope.BLOCK if _is_lambda(outer.head) else Scope.INITIALIZER
    if outer.scope is Scope.DECLARATIONS:
        return _classify_declaration(head)
    return _classify_in_function(head)


def _classify_declaration(head: list[Token]) -> Scope:
    texts = [token.text for token in head]
    if not texts or "namespace" in texts or texts[0] == "extern":
        return Scope.DECLARATIONS
    parameters = _find_parameters(head)
    if parameters is None:
        return Scope.DECLARATIONS if _TYPE_KEYWORDS & set(texts) else Scope.INITIALIZER
    if _has_assignment_before_parameters(head):
        return Scope.BLOCK if _is_lambda(head) else Scope.INITIALIZER
    in_member_initializers = ":" in texts[parameters[1] :]
    if in_member_initializers and (head[-1].is_word or texts[-1] == ">"):
        return Scope.INITIALIZER
    return Scope.FUNCTION


def _classify_in_function(head: list[Token]) -> Scope:
    if not head or head[0].text == "case":
        return Scope.BLOCK
    if _is_lambda(head):
        return Scope.BLOCK
    if head[0].text in _CONTROL and head[-1].text in {")", "]", "else", "do", "try"}:
        return Scope.BLOCK
    if head[0].text in _TYPE_KEYWORDS:
        return Scope.DECLARATIONS
    return Scope.INITIALIZER


def _ends_label(head: list[Token]) -> bool:
    """`public:`, `case X:`, `default:`; not `a ? b : c` and not a member initializer list."""
    if not head:
        return False
    if head[0].text == "case":
        return "?" not in [token.text for token in head]
    return len(head) == 1 and head[0].text in {"public", "private", "protected", "default"}


def _without_template(head: list[Token]) -> list[Token]:
    """Drops leading `template <...>`, whose `class` and parentheses would mislead."""
    while [token.text for token in head[:2]] == ["template", "<"]:
        depth, length = 1, 2
        while depth > 0 and length < len(head):
            depth += {"<": 1, ">": -1}.get(head[length].text, 0)
            length += 1
        head = head[length:]
    return head


def _is_lambda(head: list[Token]) -> bool:
    """Whether `head` ends with `[...](...) specifiers`, so that a lambda's body follows."""
    index = len(head) - 1
    while index >= 0 and head[index].text not in {")", "]", ";", "(", ",", "=", "}"}:
        index -= 1  # mutable, noexcept, -> type
    if index < 0:
        return False
    if head[index].text == ")":
        index = _matching(head, index) - 1
    if index < 0 or head[index].text != "]":
        return False
    opening = _matching(head, index)
    before = head[opening - 1] if opening > 0 else None
    is_subscript = before is not None and (before.is_word or before.text in {")", "]", "["})
    return not is_subscript or (before is not None and before.text in {"return", "co_return"})


def _matching(head: list[Token], closing_index: int) -> int:
    """Index of the bracket that the one at `closing_index` closes; -1 if there is none."""
    depth = 0
    for index in range(closing_index, -1, -1):
        if head[index].text in _CLOSING.values():
            depth += 1
        elif head[index].text in _CLOSING:
            depth -= 1
            if depth == 0:
                return index
    return -1


def _find_parameters(head: list[Token]) -> tuple[int, int] | None:
    """Indices of the parentheses around the parameters of the function that `head` declares."""
    index = 0
    while index < len(head):
        if head[index].text in _CLOSING:
            closing = _closing(head, index)
            if head[index].text == "(" and _names_function(head, index):
                return index, closing
            index = closing
        index += 1
    return None


def _names_function(head: list[Token], index: int) -> bool:
    before = head[index - 1] if index > 0 else None
    if before is None or before.text in _NOT_A_NAME:
        return False
    if before.text == "operator":
        return False  # the first parentheses of operator()
    follows_operator = any(token.text == "operator" for token in head[max(0, index - 4) : index])
    return before.is_word or before.text == ">" or follows_operator


def _closing(head: list[Token], opening_index: int) -> int:
    depth = 0
    for index in range(opening_index, len(head)):
        if head[index].text in _CLOSING:
            depth += 1
        elif head[index].text in _CLOSING.values():
            depth -= 1
            if depth == 0:
                return index
    return len(head) - 1


def _has_assignment_before_parameters(head: list[Token]) -> bool:
    parameters = _find_parameters(head)
    texts = [token.text for token in head[: parameters[0] if parameters else len(head)]]
    return "=" in texts and "operator" not in texts


def _describe_function(head: list[Token]) -> Function | None:
    head = _without_template(head)
    parameters = _find_parameters(head)
    if parameters is None:
        return None
    opening, closing = parameters
    name = _name_before(head, opening)
    if name.isupper() and "_" in name and len(head) == closing + 1 and opening == 1:
        return Function(name, head[0].line, head[-1].line, 0)  # a macro call
    num_parameters = _count_parameters(head[opening + 1 : closing])
    return Function(name, head[0].line, head[-1].line, num_parameters)


def _name_before(head: list[Token], opening: int) -> str:
    texts = [token.text for token in head[:opening]]
    if "operator" not in texts:
        return texts[-1]
    operator_at = texts.index("operator")
    separator = " " if texts[-1][0].isalpha() else ""
    return "operator" + separator + "".join(texts[operator_at + 1 :])


def _count_parameters(tokens: list[Token]) -> int:
    if not tokens or [token.text for token in tokens] == ["void"]:
        return 0
    depth, count = 0, 1
    for token in tokens:
        depth += {"(": 1, "[": 1, "{": 1, "<": 1, ")": -1, "]": -1, "}": -1, ">": -1}.get(
            token.text, 0
        )
        count += token.text == "," and depth == 0
    return count
