"""Measures the network between ranks: who reaches whom, how fast, and whether bytes are right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moelink import _core
from moelink.errors import invalid_argument
from moelink.group import Group, milliseconds

__all__ = ["NetworkLink", "NetworkRank", "NetworkReport", "measure_network"]

_PAIRS = {
    "hosts": _core.NetworkPairs.HOSTS,
    "rails": _core.NetworkPairs.RAILS,
    "all": _core.NetworkPairs.ALL,
}


@dataclass(frozen=True, slots=True)
class NetworkLink:
    """One direction between two ranks. What was not measured is 0."""

    source: int
    target: int
    small_put_us: float
    """8 bytes, half of the round trip, so equal in both directions."""
    row_put_us: float
    """7168 bytes, likewise."""
    gb_per_s: float
    """Puts of 1 MiB from source to target, in 1e9 bytes per second."""
    num_wrong_bytes: int
    """At the target, among all that came from the source."""
    problem: str
    """Why it was not measured, or empty."""


@dataclass(frozen=True, slots=True)
class NetworkRank:
    """Where a rank is and what it puts through."""

    host_name: str
    host: int
    """Number of its host: ranks of one host have the same one."""
    transport: str
    """Such as ``"libfabric tcp;ofi_rxm over eth0"``."""


@dataclass(frozen=True, slots=True)
class NetworkReport:
    """What :func:`measure_network` found; the same at all ranks."""

    ranks: list[NetworkRank]
    """By rank."""
    links: list[NetworkLink]
    """Ordered by source, then by target; both directions of each pair."""


def measure_network(
    group: Any = None,
    *,
    pairs: str = "hosts",
    transport: str = "",
    provider: str = "",
    max_nics: int = 0,
    near_pci: str = "",
    timeout: float = 10.0,
) -> NetworkReport:
    """Opens the transport between all ranks, measures pairs and checks every byte. Collective.

    * ``group``: as for :class:`moelink.Buffer`.
    * ``pairs``: ``"hosts"``: ranks of different hosts (all pairs if there is one host only);
      ``"rails"``: of these, the n-th rank of a host with the n-th of others; or ``"all"``.
    * ``transport``: ``"libfabric"``, or ``"loopback"`` between threads. Empty: ``MOELINK_NETWORK``.
    * ``provider``: of libfabric. Empty: ``MOELINK_FABRIC_PROVIDER``, else the best.
    * ``max_nics``: cards that one rank uses at a time. 0: ``MOELINK_NICS``.
    * ``near_pci``: PCI address of the device whose cards are preferred, such as ``0000:1b:00.0``.
    * ``timeout``: longest time for one pair, in seconds; at most half of the group's counts.

    A peer that cannot be reached is the ``problem`` of its links. Raises :class:`moelink.Error`
    with code ``UNSUPPORTED`` without a network that all ranks have, ``INVALID_ARGUMENT`` for wrong
    options, ``PEER_LOST`` or ``TIMEOUT`` naming a rank that has left the group.
    """
    if pairs not in _PAIRS:
        raise invalid_argument(
            f"measure_network: pairs {pairs!r}, expected {', '.join(map(repr, _PAIRS))}"
        )
    group = Group.of(group)
    check = _core.NetworkCheck()
    check.pairs = _PAIRS[pairs]
    check.transport = transport
    check.provider = provider
    check.max_nics = max_nics
    check.near_pci = near_pci
    check.timeout_ms = milliseconds(timeout, f"measure_network (rank {group.rank})")
    report = _core.measure_network(group._core, check)
    return NetworkReport(
        [_copy(rank, NetworkRank) for rank in report.ranks],
        [_copy(link, NetworkLink) for link in report.links],
    )


def _copy(core: Any, kind: Any) -> Any:
    return kind(**{name: getattr(core, name) for name in kind.__dataclass_fields__})
