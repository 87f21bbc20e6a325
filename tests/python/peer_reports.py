"""Reports of `doctor --peers` made by hand, as ranks of several hosts would send them."""

from __future__ import annotations

from typing import Any


def make_link(source: int, target: int, **changes: Any) -> dict[str, Any]:
    link = {
        "source": source,
        "target": target,
        "small_put_us": 10.0,
        "row_put_us": 12.0,
        "gb_per_s": 4.0,
        "num_wrong_bytes": 0,
        "problem": "",
    }
    return {**link, **changes}


def make_facts(rank: int, *providers: str, **changes: Any) -> dict[str, Any]:
    facts = {
        "host_name": f"node{rank}",
        "devices": [],
        "device": None,
        "near_pci": "",
        "libfabric": "1.17",
        "problem": "",
        "providers": [{"name": name, "nics": ["eth0"]} for name in providers or ("tcp",)],
        "wishes": {},
        "checks": [],
    }
    return {**facts, **changes}


def make_result(num_ranks: int, *changed: dict[str, Any], hosts: int = 0) -> dict[str, Any]:
    """All links between ranks that are each on a host of its own, some of them changed."""
    changes = {(link["source"], link["target"]): link for link in changed}
    ends = [(a, b) for a in range(num_ranks) for b in range(num_ranks) if a != b]
    return {
        "facts": [make_facts(rank) for rank in range(num_ranks)],
        "report": {
            "ranks": [
                {
                    "host_name": f"node{rank}",
                    "host": rank % hosts if hosts else rank,
                    "transport": "libfabric tcp;ofi_rxm over eth0",
                }
                for rank in range(num_ranks)
            ],
            "links": [changes.get(end, make_link(*end)) for end in ends],
        },
        "error": None,
    }


def both(source: int, target: int, **changes: Any) -> list[dict[str, Any]]:
    return [make_link(source, target, **changes), make_link(target, source, **changes)]
