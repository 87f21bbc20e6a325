"""`moelink doctor`: what it looks at, and that it never shows the secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from moelink.cli import (
    doctor,
    doctor_machine,
    doctor_network,
    doctor_software,
    exit_codes,
    main,
    self_test,
)
from moelink.cli.doctor_check import LIMITED, NO, OK, Check

CHECKS = [
    "CPU",
    "SIMD",
    "memory",
    "process limits",
    "shared memory",
    "passing of files",
    "NUMA",
    "huge pages",
    "compiled part",
    "packages",
    "launchers",
    "job secret",
    "variables",
    "GPUs",
    "CUDA backend",
    "GPUs in PyTorch",
    "GPU to GPU",
    "GPU memory kind",
    "low latency lines",
    "network",
    "network path",
    "network hardware",
    "locked memory",
]


def test_doctor_makes_every_check_and_passes_where_tests_pass(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.main(["doctor", "--json"]) == exit_codes.OK
    document = json.loads(capsys.readouterr().out)
    assert document["cpu_backend_works"]
    assert [check["name"] for check in document["checks"]] == [*CHECKS, "self-test"]
    assert all(check["status"] in (OK, LIMITED, NO) for check in document["checks"])


def test_doctor_without_self_test_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["doctor", "--no-self-test"]) == exit_codes.OK
    assert "not tried" in capsys.readouterr().out


def test_doctor_fails_when_the_self_test_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Check("self-test", NO, "rank 1 was ended by signal 9", required=True)
    monkeypatch.setattr(self_test, "check", lambda: broken)
    assert main.main(["doctor"]) == exit_codes.CANNOT
    text = capsys.readouterr().out
    assert "rank 1 was ended by signal 9" in text
    assert "does not work here" in text


def test_only_required_checks_decide() -> None:
    assert doctor.cpu_backend_works([Check("GPUs", NO, "none")])
    assert not doctor.cpu_backend_works([Check("shared memory", NO, "none", required=True)])


def test_self_test_names_the_wrong_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    results = [{"dispatch": True, "combine": True}, {"dispatch": True, "combine": False}]
    monkeypatch.setattr(self_test.ranks, "run_processes", lambda job: results)
    check = self_test.check()
    assert check.status == NO
    assert "combine of rank 1" in check.finding


def make_fabric_report(*providers: tuple[str, list[str]], problem: str = "") -> SimpleNamespace:
    return SimpleNamespace(
        problem=problem,
        version="1.17",
        providers=[SimpleNamespace(name=name, nics=nics, hmem=False) for name, nics in providers],
    )


def test_networks_are_listed_with_their_cards() -> None:
    report = make_fabric_report(("verbs", ["mlx5_0", "mlx5_1"]), ("tcp", ["eth0"]))
    check = doctor_network.check_network(report)
    assert check.status == LIMITED
    assert "libfabric 1.17: verbs (mlx5_0, mlx5_1); tcp (eth0)" in check.finding
    assert "mlx5_0" in doctor_network.check_network_hardware(report).finding


@pytest.mark.parametrize("report", [None, make_fabric_report(problem="no libfabric here")])
def test_missing_networks_say_why(report: SimpleNamespace | None) -> None:
    check = doctor_network.check_network(report)
    assert check.status == NO
    assert "no libfabric here" in check.finding or report is None


TCP = make_fabric_report(("tcp", ["eth0"]))
NO_FABRIC = make_fabric_report(problem="no libfabric here")


@pytest.mark.parametrize(
    ("report", "variables", "status", "words"),
    [
        (TCP, {}, OK, ["none within a host", "hierarchical", "survival='mask'"]),
        (TCP, {"MOELINK_NODES": "2"}, OK, ["between 2 nodes (MOELINK_NODES)"]),
        (TCP, {"MOELINK_NETWORK_MODE": "direct"}, OK, ["(MOELINK_NETWORK_MODE)"]),
        (TCP, {"MOELINK_NETWORK": "memory"}, LIMITED, ["MOELINK_NETWORK=memory", "share memory"]),
        (NO_FABRIC, {}, LIMITED, ["none between processes", "loopback"]),
        (NO_FABRIC, {"MOELINK_NETWORK": "loopback"}, OK, ["hierarchical"]),
    ],
)
def test_network_path_says_what_a_group_would_take_and_why(
    report: SimpleNamespace, variables: dict[str, str], status: str, words: list[str]
) -> None:
    paths = {"raise": "hierarchical", "mask": "direct"}
    check = doctor_network.check_network_path(report, variables, paths.__getitem__)
    assert check.status == status
    for word in words:
        assert word in check.finding


def test_network_path_tells_of_variables_that_do_not_parse() -> None:
    def refuse(survival: str) -> str:
        raise ValueError("MOELINK_NETWORK_MODE='sideways'")

    check = doctor_network.check_network_path(TCP, {}, refuse)
    assert (check.status, check.finding) == (NO, "MOELINK_NETWORK_MODE='sideways'")


def test_doctor_ends_in_order_when_a_variable_does_not_parse() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "moelink.cli.main", "doctor"],
        env={**os.environ, "MOELINK_NETWORK_MODE": "sideways"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == exit_codes.CANNOT
    assert done.stderr.startswith("moelink doctor: invalid argument: environment variable")


def test_what_has_not_run_on_hardware_is_said() -> None:
    for report in (make_fabric_report(("tcp", ["eth0"])), make_fabric_report(("efa", ["rdmap0"]))):
        finding = doctor_network.check_network_hardware(report).finding
        assert "efa, cxi, verbs" in finding
        assert "have not run on hardware" in finding


@pytest.mark.parametrize(
    ("providers", "limit", "status"),
    [
        ([("tcp", ["eth0"])], 65536, OK),
        ([("verbs", ["mlx5_0"])], 65536, LIMITED),
        ([("verbs", ["mlx5_0"])], 1 << 40, OK),
        ([("verbs", ["mlx5_0"])], -1, OK),
    ],
)
def test_locked_memory_matters_to_cards(
    providers: list[tuple[str, list[str]]], limit: int, status: str
) -> None:
    check = doctor_network.check_locked_memory(make_fabric_report(*providers), limit)
    assert check.status == status
    assert ("ulimit -l" in check.advice) == (status == LIMITED)


def test_secret_is_never_shown() -> None:
    environment = {"MOELINK_SECRET": "correct horse battery", "MOELINK_NODES": "2"}
    text = str(doctor_software.check_variables(environment))
    text += str(doctor_software.check_secret(environment))
    assert "horse" not in text
    assert "MOELINK_NODES=2" in text


def test_variables_of_networks_and_of_the_rendezvous_are_known() -> None:
    environment = {"MOELINK_FABRIC_PROVIDER": "tcp", "MOELINK_HOST": "node1", "MOELINK_PORT": "1"}
    assert doctor_software.check_variables(environment).status == OK


def test_unknown_variable_is_pointed_out() -> None:
    check = doctor_software.check_variables({"MOELINK_WORKRES": "3"})
    assert check.status == LIMITED
    assert "no effect: MOELINK_WORKRES" in check.advice


@pytest.mark.parametrize(("secret", "status"), [("", LIMITED), ("short", LIMITED), ("x" * 32, OK)])
def test_secret_must_be_set_and_long(secret: str, status: str) -> None:
    assert doctor_software.check_secret({"MOELINK_SECRET": secret}).status == status


@pytest.mark.parametrize(("text", "cores"), [("150000 100000", 1.5), ("max 100000", None)])
def test_cpu_quota_of_a_container_is_read(text: str, cores: float | None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert doctor_machine.cpu_quota(tmp_path) == cores


def test_memory_limit_of_a_container_is_read(tmp_path: Path) -> None:
    assert doctor_machine.memory_limit_bytes(tmp_path) is None
    (tmp_path / "memory.max").write_text("1048576\n")
    assert doctor_machine.memory_limit_bytes(tmp_path) == 1 << 20
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor_machine.memory_limit_bytes(tmp_path) is None


def test_several_memory_nodes_call_for_binding(tmp_path: Path) -> None:
    for node in range(2):
        (tmp_path / f"node{node}").mkdir()
        (tmp_path / f"node{node}" / "cpulist").write_text(f"{4 * node}-{4 * node + 3}\n")
    check = doctor_machine.check_numa(tmp_path)
    assert check.status == LIMITED
    assert "node1: cores 4-7" in check.finding


@pytest.mark.parametrize(
    ("text", "status"), [("always [advise] never", OK), ("always advise [never]", LIMITED)]
)
def test_huge_pages_setting_is_read(text: str, status: str, tmp_path: Path) -> None:
    path = tmp_path / "shmem_enabled"
    path.write_text(text)
    assert doctor_machine.check_huge_pages(str(path)).status == status
