"""Runs a function on several ranks that are threads of this process."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import moelink

TIMEOUT_S = 30.0


@dataclass
class Outcome:
    """What one rank returned, or the error that it raised."""

    value: Any = None
    error: BaseException | None = None


def run_threads(
    num_ranks: int, body: Callable[[moelink.Group], Any], *, num_nodes: int = 0
) -> list[Any]:
    """Results of ``body(group)`` in rank order; raises the error of the lowest rank that failed."""
    groups = moelink.Group.threads(num_ranks, timeout=TIMEOUT_S, num_nodes=num_nodes)
    outcomes = outcomes_of(groups, body)
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return [outcome.value for outcome in outcomes]


def errors_of(num_ranks: int, body: Callable[[moelink.Group], Any]) -> list[moelink.Error | None]:
    """The moelink.Error that each rank raised, or None; other exceptions are raised here."""
    errors: list[moelink.Error | None] = []
    for outcome in outcomes_of(moelink.Group.threads(num_ranks, timeout=TIMEOUT_S), body):
        if outcome.error is not None and not isinstance(outcome.error, moelink.Error):
            raise outcome.error
        errors.append(outcome.error)
    return errors


def outcomes_of(groups: list[moelink.Group], body: Callable[[moelink.Group], Any]) -> list[Outcome]:
    """How ``body(group)`` ended on every rank."""
    outcomes = [Outcome(error=AssertionError(f"rank {g.rank} did not end")) for g in groups]

    def run(rank: int) -> None:
        try:
            outcomes[rank] = Outcome(value=body(groups[rank]))
        except BaseException as error:
            outcomes[rank] = Outcome(error=error)

    ranks = range(len(groups))
    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * TIMEOUT_S)
    return outcomes
