"""`moelink doctor --peers`: local ranks, what the verdict says of made-up networks, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from moelink.cli import doctor_devices, doctor_peers, doctor_peers_report, exit_codes, main, ranks
from moelink.cli import launchers as known_launchers
from peer_reports import both, make_facts, make_link, make_result
from process_ranks import SECRET, free_port

LOST = {"problem": "timeout: rank 0: network check: nothing arrived from it", "gb_per_s": 0.0}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in known_launchers.RANK_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def document_of(result: dict[str, Any]) -> dict[str, Any]:
    return doctor_peers_report.make_document(result, "moelink doctor --peers")


def verdict_of(result: dict[str, Any]) -> str:
    return "\n".join(document_of(result)["verdict"])


def code_of(result: dict[str, Any]) -> int:
    return doctor_peers.exit_code(document_of(result), result["error"])


def has_network() -> bool:
    from moelink._core import fabric_report

    return not fabric_report().problem


needs_network = pytest.mark.skipif(not has_network(), reason="libfabric is not installed here")


@needs_network
def test_local_ranks_measure_every_pair(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["doctor", "--peers", "--ranks", "4", "--nodes", "2", "--json"]
    assert main.main(arguments) == exit_codes.OK
    document = json.loads(capsys.readouterr().out)
    assert document["reached"]
    assert document["verified"]
    assert document["problem"] is None
    assert [rank["node"] for rank in document["ranks"]] == [0, 0, 1, 1]
    assert len(document["links"]) == 12
    for link in document["links"]:
        assert min(link["small_put_us"], link["row_put_us"], link["gb_per_s"]) > 0
        assert (link["num_wrong_bytes"], link["problem"]) == (0, "")
    for rank in document["ranks"]:
        assert rank["transport"].startswith("libfabric tcp")
        assert "best that all ranks have" in rank["why"]
        assert [check["name"] for check in rank["checks"]] == [
            "network",
            "network path",
            "network hardware",
            "locked memory",
        ]
    assert "one host" in document["verdict"][-2]
    assert "all 6 pairs reached each other, every byte is right" in document["verdict"][-1]


@needs_network
def test_tables_show_ranks_pairs_and_what_has_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["doctor", "--peers", "--ranks", "2"]) == exit_codes.OK
    text = capsys.readouterr().out
    assert "libfabric tcp" in text
    assert "0 - 1" in text
    assert "right" in text
    assert "efa, cxi, verbs" in text
    assert "have not run on hardware" in text
    assert "all 1 pairs reached each other" in text.splitlines()[-1]


@needs_network
def test_provider_that_nobody_has_is_told_with_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOELINK_FABRIC_PROVIDER", "cxi")
    assert main.main(["doctor", "--peers", "--ranks", "2"]) == exit_codes.CANNOT
    captured = capsys.readouterr()
    assert "tcp (" in captured.out
    assert "rank 0 has no provider 'cxi'" in captured.err


def run_as_rank(
    rank: int, num_ranks: int, port: int, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the library reads its variables once."""
    environment = {
        "MOELINK_RANK": str(rank),
        "MOELINK_NUM_RANKS": str(num_ranks),
        "MOELINK_PORT": str(port),
        "MOELINK_SECRET": SECRET,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-m", "moelink.cli.main", "doctor", "--peers", *arguments]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=60
    )


def test_rank_that_never_comes_is_named_by_the_deadline() -> None:
    begin = time.monotonic()
    done = run_as_rank(0, 3, free_port(), "--timeout", "1", "--json")
    assert time.monotonic() - begin < 30
    assert done.returncode == exit_codes.RUNTIME
    document = json.loads(done.stdout)
    assert "ranks 1, 2 did not arrive within 1000 ms" in document["problem"]
    assert "rank 0 listens at 127.0.0.1" in document["problem"]
    assert "start the missing ranks" in document["verdict"][0]
    assert not document["reached"]


def test_rank_that_finds_no_rank_0_says_where_it_looked() -> None:
    port = free_port()
    done = run_as_rank(1, 2, port, "--timeout", "1")
    assert done.returncode == exit_codes.RUNTIME
    assert done.stdout == ""
    assert f"could not reach rank 0 at 127.0.0.1:{port}" in done.stderr


def test_local_rank_that_dies_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(job: ranks.LocalJob) -> list[Any]:
        raise ranks.RanksFailedError("rank 2 was ended by signal 9 (SIGKILL)")

    monkeypatch.setattr(ranks, "run_processes", fail)
    assert main.main(["doctor", "--peers", "--ranks", "3"]) == exit_codes.RUNTIME
    assert "rank 2 was ended by signal 9" in capsys.readouterr().err


def test_even_network_is_praised() -> None:
    result = make_result(4)
    assert verdict_of(result) == (
        "all 6 pairs reached each other, every byte is right; median 10.0 µs, 4.00 GB/s"
    )
    assert code_of(result) == exit_codes.OK


def test_rank_that_nobody_reaches_is_named_once_with_what_to_do() -> None:
    lost = [link for peer in range(3) for link in both(peer, 3, **LOST)]
    result = make_result(4, *lost)
    text = verdict_of(result)
    assert text.count("NOT REACHED") == 1
    assert "rank 3 on node3 (libfabric tcp;ofi_rxm over eth0), by ranks 0, 1, 2: timeout" in text
    assert "FI_TCP_PORT_LOW_RANGE" in text
    assert "3 of 6 pairs reached each other" in text
    assert code_of(result) == exit_codes.RUNTIME
    table = doctor_peers_report.make_pair_table(document_of(result))
    assert table is not None
    assert [row[-1] for row in table.rows].count("not reached") == 3


def test_single_pair_that_fails_blames_no_rank_alone() -> None:
    text = verdict_of(make_result(3, *both(0, 1, **LOST)))
    assert "NOT REACHED: rank 1 from rank 0 or back" in text


def test_network_in_which_nobody_reaches_anybody_lists_pairs() -> None:
    text = verdict_of(make_result(2, *both(0, 1, **LOST)))
    assert "NOT REACHED: rank 1 from rank 0 or back" in text
    assert "None of 1 pairs reached each other" in text


def test_wrong_bytes_are_counted_and_fail() -> None:
    result = make_result(3, make_link(2, 1, num_wrong_bytes=17))
    assert "WRONG: 17 bytes from rank 2 differ at rank 1" in verdict_of(result)
    assert "bytes are WRONG" in verdict_of(result)
    assert code_of(result) == exit_codes.VERIFICATION_FAILED


def test_slow_and_lopsided_links_are_named_with_the_median() -> None:
    late = both(0, 2, small_put_us=40.0)
    result = make_result(4, make_link(3, 1, gb_per_s=1.0), *late)
    text = verdict_of(result)
    assert "slow: rank 3 to rank 1: 1.00 GB/s, the median of all is 4.00" in text
    assert "slow: rank 0 to rank 2: 40.0 µs for 8 bytes, the median of all is 10.0" in text
    assert "asymmetric: 4.00 GB/s from rank 1 to rank 3, but 1.00 GB/s back" in text
    assert code_of(result) == exit_codes.OK


def test_links_within_a_host_are_not_compared_with_those_between() -> None:
    within = [link for a, b in ((0, 2), (1, 3)) for link in both(a, b, gb_per_s=50.0)]
    result = make_result(4, *within, hosts=2)
    assert "slow" not in verdict_of(result)


def test_many_findings_of_a_kind_are_cut_short() -> None:
    wrong = [make_link(0, peer, num_wrong_bytes=1) for peer in range(1, 9)]
    assert "... and 3 more of this kind" in verdict_of(make_result(9, *wrong))


def test_large_group_shows_its_worst_pairs() -> None:
    document = document_of(make_result(12, *both(3, 7, **LOST)))
    table = doctor_peers_report.make_pair_table(document)
    assert table is not None
    assert len(table.rows) == doctor_peers_report.MAX_PAIRS_SHOWN
    assert table.rows[0][0] == "3 - 7"
    assert "worst of 66 pairs" in table.title


def test_reason_names_who_lacks_a_better_provider() -> None:
    facts = [make_facts(0, "verbs", "tcp"), make_facts(1, "tcp"), make_facts(2, "tcp")]
    reason = doctor_peers_report.why("libfabric tcp;ofi_rxm over eth0", facts, 0)
    assert reason == "tcp is the best that all ranks have; verbs is missing at ranks 1, 2"


def test_reason_names_wishes_and_cards() -> None:
    cards = [{"name": "verbs", "nics": ["mlx5_0", "mlx5_1"]}]
    wishes = {"MOELINK_FABRIC_PROVIDER": "verbs"}
    told = make_facts(0, providers=cards, wishes=wishes, near_pci="0000:1b:00.0")
    reason = doctor_peers_report.why("libfabric verbs over mlx5_1", [told], 0)
    assert "MOELINK_FABRIC_PROVIDER=verbs" in reason
    assert "mlx5_1 of mlx5_0, mlx5_1, nearest to 0000:1b:00.0" in reason
    assert doctor_peers_report.why("loopback", [make_facts(0)], 0) == "all ranks are threads"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--ranks", "2"],
        ["--pairs", "all"],
        ["--peers", "--ranks", "0"],
        ["--peers", "--ranks", "3", "--nodes", "2"],
        ["--peers", "--no-self-test"],
        ["--peers", "--timeout", "0"],
    ],
)
def test_options_that_do_not_fit_are_usage_errors(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(["doctor", *arguments])
    assert caught.value.code == exit_codes.USAGE


def test_gpus_are_listed_by_address_and_taken_in_turn(tmp_path: Path) -> None:
    listed = doctor_devices.parse_gpus(
        "NVIDIA H100 80GB HBM3, 00000000:1B:00.0\nNVIDIA H100 80GB HBM3, 00000000:9D:00.0\n"
    )
    assert [gpu.pci for gpu in listed] == ["0000:1b:00.0", "0000:9d:00.0"]
    assert doctor_devices.visible_gpus(listed, "1") == listed[1:]
    assert doctor_devices.visible_gpus(listed, "GPU-5f3a") == listed
    assert doctor_devices.visible_gpus(listed, "") == []
    assert doctor_devices.gpu_of_rank(listed, 3, {}) == listed[1]
    assert doctor_devices.gpu_of_rank(listed, 3, {"SLURM_LOCALID": "2"}) == listed[0]
    assert doctor_devices.gpu_of_rank([], 3, {}) is None
    assert doctor_devices.address_in_system(listed[0], tmp_path) == ""
    (tmp_path / "0000:1b:00.0").mkdir()
    assert doctor_devices.address_in_system(listed[0], tmp_path) == "0000:1b:00.0"
