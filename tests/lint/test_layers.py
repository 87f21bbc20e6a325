"""The one-way rule: each forbidden kind of include is found, each allowed kind is not."""

import pytest
from lint import layers

HEADERS = [
    "include/moelink/buffer.hpp",
    "include/moelink/types.hpp",
    "src/base/check.hpp",
    "src/protocol/placement.hpp",
    "src/device/copy.hpp",
    "src/kernels/dispatch/entry.hpp",
    "src/bootstrap/bootstrap.hpp",
    "src/symm/arena.hpp",
    "src/symm/memfd/segment.hpp",
    "src/transport/transport.hpp",
    "src/proxy/ring.hpp",
    "src/backend/backend.hpp",
    "src/backend/cpu/cpu_backend.hpp",
    "src/backend/cuda/cuda_backend.hpp",
    "src/api/validation.hpp",
    "tests/conformance/exchange.hpp",
]

ALLOWED = [
    ("src/base/log.cpp", "base/check.hpp"),
    ("src/base/log.cpp", "moelink/types.hpp"),
    ("src/protocol/counts.cpp", "base/check.hpp"),
    ("src/kernels/dispatch/launch.cu", "device/copy.hpp"),
    ("src/symm/arena.cpp", "bootstrap/bootstrap.hpp"),
    ("src/proxy/ring.cpp", "transport/transport.hpp"),
    ("src/symm/registry.cpp", "symm/memfd/segment.hpp"),
    ("src/backend/cpu/dispatch.cpp", "symm/arena.hpp"),
    ("src/backend/cpu/dispatch.cpp", "kernels/dispatch/entry.hpp"),
    ("src/api/buffer.cpp", "backend/backend.hpp"),
    ("src/api/buffer.cpp", "moelink/buffer.hpp"),
    ("python/bindings/machine.cpp", "backend/backend.hpp"),
    ("tests/ranks/exchange_test.cpp", "conformance/exchange.hpp"),
    ("tests/ranks/exchange_test.cpp", "symm/arena.hpp"),
    ("examples/01_first.cpp", "moelink/buffer.hpp"),
]

FORBIDDEN = [
    ("src/base/log.cpp", "protocol/placement.hpp"),
    ("src/protocol/counts.cpp", "symm/arena.hpp"),
    ("src/device/copy.cpp", "kernels/dispatch/entry.hpp"),
    ("src/kernels/dispatch/launch.cu", "transport/transport.hpp"),
    ("src/kernels/dispatch/launch.cu", "symm/arena.hpp"),
    ("src/bootstrap/tcp.cpp", "symm/arena.hpp"),
    ("src/transport/transport.cpp", "symm/arena.hpp"),
    ("src/transport/transport.cpp", "proxy/ring.hpp"),
    ("src/symm/arena.cpp", "backend/backend.hpp"),
    ("src/backend/cpu/dispatch.cpp", "api/validation.hpp"),
    ("src/backend/cpu/dispatch.cpp", "backend/cuda/cuda_backend.hpp"),
    ("src/backend/cpu/dispatch.cpp", "moelink/buffer.hpp"),
    ("src/base/log.cpp", "check.hpp"),
    ("src/base/log.cpp", "../base/check.hpp"),
    ("src/elsewhere/new.cpp", "base/check.hpp"),
    ("include/moelink/group.hpp", "base/check.hpp"),
    ("examples/01_first.cpp", "base/check.hpp"),
    ("tests/ranks/exchange_test.cpp", "symm/missing.hpp"),
    ("src/base/log.cpp", "moelink/missing.hpp"),
]


def files_with_include(path, target):
    return {**dict.fromkeys(HEADERS, ""), path: f'// A file.\n#include "{target}"\n'}


@pytest.mark.parametrize(("path", "target"), ALLOWED)
def test_layers_accept_an_include_along_the_chain(rules_found, path, target):
    assert rules_found(layers.check, files_with_include(path, target)) == []


@pytest.mark.parametrize(("path", "target"), FORBIDDEN)
def test_layers_reject_an_include_against_the_chain(rules_found, path, target):
    assert rules_found(layers.check, files_with_include(path, target)) == ["layers"]


@pytest.mark.parametrize("header", ["thread", "unistd.h", "sys/mman.h"])
def test_layers_reject_system_calls_in_the_protocol(rules_found, header):
    text = f"#include <{header}>\n"
    assert rules_found(layers.check, {"src/protocol/counts.hpp": text}) == ["layers"]
    assert rules_found(layers.check, {"src/symm/counts.hpp": text}) == []
