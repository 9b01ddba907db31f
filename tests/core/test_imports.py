"""Imports that import-linter can't see: of the compiled core, and of the package's own names.

The floors are the layers of ``[tool.importlinter]`` in pyproject.toml, the highest first.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fastlstm
from fastlstm import weights

PACKAGE = Path(fastlstm.__file__).parent
PROJECT = PACKAGE.parent / "pyproject.toml"
# They are made of the public package, as a user's code is.
USERS = {"__main__", "cli", "data", "demo"}


def floors() -> dict[str, int]:
    """Each module of the package and its floor, counted from the top."""
    if not PROJECT.exists() or not (PACKAGE / "_core.pyx").exists():
        pytest.skip("an installed package has no sources of its core")
    contracts = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = contracts["contracts"][0]["layers"]
    return {name: floor for floor, layer in enumerate(layers) for name in re.findall(r"\w+", layer)}


def test_the_core_imports_what_is_below_it() -> None:
    floor = floors()
    for path in [PACKAGE / "_core.pyx", *PACKAGE.glob("*.pxi")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*from fastlstm import|^\s*import fastlstm", text, re.MULTILINE)
        for name in re.findall(r"^\s*from fastlstm\.(\w+)[\w.]* import", text, re.MULTILINE):
            assert floor[name] > floor["_core"], f"{path.name} imports {name}"


def imports_of_the_package(path: Path) -> set[str]:
    """The names that a module takes from the package itself; "" where that is imported whole."""
    taken: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "fastlstm":
            taken |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            taken |= {"" for alias in node.names if alias.name == "fastlstm"}
    return taken


def test_the_package_itself_is_imported_by_its_users_alone() -> None:
    floor = floors()
    for path in PACKAGE.rglob("*.py"):
        module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        taken = imports_of_the_package(path)
        if "_core" in taken:
            assert floor[module] < floor["_core"], f"{path.name} imports the core"
        if module not in USERS:  # import-linter follows the names of modules
            assert taken <= set(floor), f"{path.name} takes {taken - set(floor)} from the package"


def test_names_that_are_imported_when_asked_for_are_listed() -> None:
    assert set(weights.__all__) <= set(dir(weights))
    for name in weights.__all__:
        assert getattr(weights, name).__name__ == name
    assert set(fastlstm.__all__) <= set(dir(fastlstm))
    for name in {*fastlstm.__all__} - {"__version__"}:
        assert getattr(fastlstm, name).__name__ == name
    with pytest.raises(AttributeError, match="'fastlstm' has no attribute 'quantise'"):
        fastlstm.quantise  # type: ignore[attr-defined]  # noqa: B018


def test_what_few_need_is_not_imported() -> None:
    code = "import sys, fastlstm; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    imported = set(run.stdout.split())
    assert "fastlstm.lstm" in imported
    assert not imported & {"fastlstm.quantization", "fastlstm.reference", "fastlstm.training"}
