"""The stub of the extension module and the module itself agree on every name."""

import ast
import importlib
import pkgutil
from pathlib import Path

import moelink
import pytest
from moelink import _core

STUB = Path(moelink.__file__).parent / "_core.pyi"


def names_in(body: list[ast.stmt]) -> set[str]:
    names = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names


def is_public(name: str) -> bool:
    return not name.startswith("_") or name in ("__dlpack__", "__dlpack_device__", "__version__")


def test_stub_and_module_have_the_same_names():
    tree = ast.parse(STUB.read_text())
    stubbed = {name for name in names_in(tree.body) if is_public(name)}
    assert stubbed == {name for name in dir(_core) if is_public(name)}


def test_stub_and_classes_have_the_same_members():
    tree = ast.parse(STUB.read_text())
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        stubbed = {name for name in names_in(node.body) if is_public(name)}
        cls = getattr(_core, node.name)
        inherited = {name for base in cls.__mro__[1:] for name in vars(base)}
        actual = {name for name in vars(cls) if is_public(name)} - (inherited - stubbed)
        assert stubbed == actual, node.name


def test_package_is_marked_as_typed():
    assert STUB.with_name("py.typed").exists()


@pytest.mark.parametrize("name", moelink.__all__)
def test_public_names_have_docstrings(name: str):
    thing = getattr(moelink, name)
    if isinstance(thing, (str, tuple)):
        return
    assert thing.__doc__
    for member, value in vars(thing).items() if isinstance(thing, type) else ():
        is_documented = callable(value) or isinstance(value, property)
        if not member.startswith("_") and is_documented:
            assert getattr(value, "__doc__", None), f"{name}.{member}"


def test_all_lists_name_what_exists():
    for info in pkgutil.iter_modules(moelink.__path__, "moelink."):
        if info.name.rpartition(".")[2] in ("cli", "demo", "torch"):
            continue
        module = importlib.import_module(info.name)
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{info.name}.{name}"
