"""Turns what ranks measured of their network into the JSON and the tables of `doctor --peers`."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from moelink.cli import doctor_peers_verdict as verdict
from moelink.cli.tables import Column, Table

SCHEMA_VERSION = 1
MAX_PAIRS_SHOWN = 32

_PREFERRED = ("efa", "cxi", "verbs", "tcp")  # as the library chooses, the best first


def make_document(result: Mapping[str, Any], command: str, num_nodes: int = 1) -> dict[str, Any]:
    """The JSON document; docs/cli.md describes every key."""
    report = result["report"]
    links = [] if report is None else report["links"]
    names = [] if report is None else report["ranks"]
    facts = result["facts"]
    ranks = [
        {
            "rank": rank,
            "node": rank * num_nodes // len(facts),
            **_transport_of(names[rank] if names else None, facts, rank),
            **told,
        }
        for rank, told in enumerate(facts)
    ]
    error = result["error"]
    return {
        "schema": SCHEMA_VERSION,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "problem": None if error is None else error["message"],
        "reached": error is None and not verdict.lost(links),
        "verified": error is None and not verdict.wrong(links),
        "verdict": verdict.sentences(ranks, links, error),
        "nodes": num_nodes,
        "ranks": ranks,
        "links": links,
    }


def _transport_of(
    named: Mapping[str, Any] | None, facts: Sequence[Mapping[str, Any]], rank: int
) -> dict[str, Any]:
    if named is None:
        return {"host": None, "transport": None, "why": None}
    transport = named["transport"]
    return {
        "host": named["host"],
        "transport": transport or None,
        "why": why(transport, facts, rank) if transport else None,
    }


def why(transport: str, facts: Sequence[Mapping[str, Any]], rank: int) -> str:
    """The reasons for a transport such as "libfabric tcp;ofi_rxm over eth0"."""
    mine = facts[rank]
    kind, _, rest = transport.partition(" ")
    asked = mine["wishes"].get("MOELINK_NETWORK", "auto")
    if kind != "libfabric":
        return f"MOELINK_NETWORK={asked}" if asked != "auto" else "all ranks are threads"
    provider = rest.split(";")[0].split(" ")[0]
    wish = mine["wishes"].get("MOELINK_FABRIC_PROVIDER")
    if wish:
        reasons = [f"MOELINK_FABRIC_PROVIDER={wish}"]
    else:
        reasons = [f"{provider} is the best that all ranks have", *_missing_better(provider, facts)]
    cards = [
        card for found in mine["providers"] if found["name"] == provider for card in found["nics"]
    ]
    chosen = rest.partition(" over ")[2]
    if len(cards) > 1:
        near = f", nearest to {mine['near_pci']}" if mine["near_pci"] else ""
        reasons.append(f"{chosen} of {', '.join(cards)}{near}")
    return "; ".join(reasons)


def _missing_better(provider: str, facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Better providers that some ranks have, and who lacks them."""
    if provider not in _PREFERRED:
        return []
    reasons = []
    for better in _PREFERRED[: _PREFERRED.index(provider)]:
        has = [any(found["name"] == better for found in told["providers"]) for told in facts]
        if any(has):
            lacking = [rank for rank, there in enumerate(has) if not there]
            reasons.append(f"{better} is missing at {verdict.name_ranks(lacking)}")
    return reasons


def make_rank_table(document: Mapping[str, Any]) -> Table:
    columns = (
        Column("rank", numeric=True),
        Column("host"),
        Column("device"),
        Column("libfabric"),
        Column("network, and why", wraps=True),
    )
    many_nodes = document["nodes"] > 1
    rows = tuple(
        (
            str(rank["rank"]),
            rank["host_name"] + (f", node {rank['node']}" if many_nodes else ""),
            rank["device"] or "CPU",
            rank["libfabric"] or "none",
            _network_text(rank),
        )
        for rank in document["ranks"]
    )
    return Table("", columns, rows)


def _network_text(rank: Mapping[str, Any]) -> str:
    if rank["transport"]:
        return f"{rank['transport']}: {rank['why']}"
    if rank["problem"]:
        return str(rank["problem"])
    found = [
        f"{provider['name']} ({', '.join(provider['nics'])})" for provider in rank["providers"]
    ]
    return f"has {'; '.join(found)}" if found else "no provider that Moelink can use"


def make_pair_table(document: Mapping[str, Any]) -> Table | None:
    """A row per pair, those that need a look first; None without pairs."""
    back = {(link["source"], link["target"]): link for link in document["links"]}
    pairs = [
        (link, back[link["target"], link["source"]])
        for link in document["links"]
        if link["source"] < link["target"]
    ]
    if not pairs:
        return None
    title = f"{len(pairs)} pairs; GB/s from the first to the second rank (→) and back (←)"
    if len(pairs) > MAX_PAIRS_SHOWN:
        pairs = sorted(pairs, key=_badness)[:MAX_PAIRS_SHOWN]
        title = f"the {MAX_PAIRS_SHOWN} worst of {title}; --json has all"
    columns = (
        Column("ranks"),
        Column("hosts"),
        *(Column(name, numeric=True) for name in ("8 B µs", "7 KB µs", "→ GB/s", "← GB/s")),
        Column("bytes"),
    )
    names = [rank["host_name"] for rank in document["ranks"]]
    rows = tuple(_pair_row(there, back, names) for there, back in pairs)
    styles = {"right": "green", "WRONG": "bold red", "not reached": "bold red"}
    return Table(title, columns, rows, styles)


def _badness(pair: tuple[Mapping[str, Any], Mapping[str, Any]]) -> tuple[bool, float]:
    there, back = pair
    is_fine = not (there["problem"] or there["num_wrong_bytes"] or back["num_wrong_bytes"])
    return is_fine, min(there["gb_per_s"], back["gb_per_s"])


def _pair_row(
    there: Mapping[str, Any], back: Mapping[str, Any], names: Sequence[str]
) -> tuple[str, ...]:
    source, target = there["source"], there["target"]
    ends = (f"{source} - {target}", f"{names[source]} - {names[target]}")
    if there["problem"]:
        return (*ends, "-", "-", "-", "-", "not reached")
    is_wrong = there["num_wrong_bytes"] or back["num_wrong_bytes"]
    return (
        *ends,
        f"{there['small_put_us']:.1f}",
        f"{there['row_put_us']:.1f}",
        f"{there['gb_per_s']:.2f}",
        f"{back['gb_per_s']:.2f}",
        "WRONG" if is_wrong else "right",
    )
