"""Splits C++ into tokens with line numbers; comments, strings and directives are taken out."""

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
      (?P<newline>\n)
    | (?P<space>[ \t\r\f\v]+ | \\\n)
    | (?P<comment>//(?:\\\n|[^\n])* | /\*.*?\*/)
    | (?P<directive>^[ \t]*\#(?:\\\n|/\*.*?\*/|[^\n])*)
    | (?P<raw_string>\b(?:u8|[uUL])?R"(?P<delimiter>[^()\s\\]{0,16})\(.*?\)(?P=delimiter)")
    | (?P<string>(?:u8|[uUL])?"(?:\\.|[^"\\\n])*")
    | (?P<character>(?:u8|[uUL])?'(?:\\.|[^'\\\n])+')
    | (?P<word>[A-Za-z_]\w*)
    | (?P<number>\.?\d(?:['.\w]|(?<=[eEpP])[+-])*)
    | (?P<symbol>::|->|&&|\|\||<=>|<<=|[-+*/%&|^=!<>]=|\+\+|--|.)
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
_IGNORED = {"newline", "space", "comment", "directive"}


@dataclass(frozen=True)
class Token:
    text: str  # a string or character literal is shortened to ""
    line: int

    @property
    def is_word(self) -> bool:
        return self.text[0].isalpha() or self.text[0] == "_"


def tokenize(text: str) -> list[Token]:
    tokens = []
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "symbol"
        if match["raw_string"] is not None:
            kind = "string"
        if kind in ("string", "character"):
            tokens.append(Token('""', line))
        elif kind not in _IGNORED:
            tokens.append(Token(match[0], line))
        line += match[0].count("\n")
    return tokens
