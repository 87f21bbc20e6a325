"""One rank of a local job: started by `ranks.run_processes`, never by a person.

The parent sends one JSON line on standard input (what to run, as which rank) and keeps the pipe
open; when it closes, the parent is gone and this process ends at once. The rank answers with JSON
lines on standard output: {"progress": text}, then {"result": value} or {"error": {...}}.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, TextIO

EXIT_ERROR = 4
EXIT_ORPHAN = 5


def describe_error(error: BaseException) -> dict[str, Any]:
    """An exception as JSON for the parent; `code` is the name of a moelink.ErrorCode or None."""
    code = getattr(error, "code", None)
    return {
        "type": type(error).__name__,
        "code": getattr(code, "name", None),
        "message": str(error) or type(error).__name__,
        "traceback": "".join(traceback.format_exception(error)),
    }


def resolve(target: str) -> Callable[..., Any]:
    """The function that "package.module:function" names."""
    module, _, function = target.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints must not mix with the answers
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        result = _run(order, answers)
    except Exception as error:
        _answer(answers, {"error": describe_error(error)})
        return EXIT_ERROR
    _answer(answers, {"result": result})
    return 0


def _run(order: dict[str, Any], answers: TextIO) -> Any:
    import moelink

    group = moelink.Group.connect(
        order["rank"],
        order["num_ranks"],
        "127.0.0.1",
        order["port"],
        order["secret"],
        timeout=order["timeout"],
        num_nodes=order["num_nodes"],
    )
    job = resolve(order["target"])
    return job(group, order["arguments"], lambda text: _answer(answers, {"progress": text}))


def _answer(answers: TextIO, value: dict[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(EXIT_ORPHAN)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Skips interpreter shutdown: destructors must not wait for peers after a failure.
    os._exit(code)
