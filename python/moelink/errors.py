"""The one exception type of Moelink."""

from __future__ import annotations

from moelink._core import ErrorCode

__all__ = ["Error", "ErrorCode"]


class Error(RuntimeError):
    """Raised by every call that fails.

    The message names the argument or the stage, the value seen, the value expected, and the rank.
    ``code`` says what to do about it; see :class:`ErrorCode`.
    """

    code: ErrorCode

    def __init__(self, message: str, code: ErrorCode = ErrorCode.INTERNAL) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[Error], tuple[str, ErrorCode]]:
        return type(self), (str(self), self.code)


def make_error(code: ErrorCode, message: str) -> Error:
    """An error whose message opens with the kind of error, as those of the core do."""
    return Error(f"{code.name.lower().replace('_', ' ')}: {message}", code)


def invalid_argument(message: str) -> Error:
    """An error that the caller can mend."""
    return make_error(ErrorCode.INVALID_ARGUMENT, message)
