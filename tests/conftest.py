"""Fixtures for all tests: every instruction set of the machine, both precisions."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, _core


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the slow tests, too")
    parser.addoption("--slow", action="store_true", help="run the slow tests alone")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to run the tests on another instruction set than FASTLSTM_ISA names."""
    asked = os.environ.get("FASTLSTM_ISA")
    if asked and (asked not in _core.available_isas() or LSTM(1, 1).isa != asked):
        pytest.exit(f"FASTLSTM_ISA: layers don't run on {asked!r} here", returncode=3)


def pytest_report_header(config: pytest.Config) -> list[str]:
    suite = "the quick suite; --all adds the rest"
    if config.getoption("slow"):
        suite = "the slow tests"
    elif config.getoption("all"):
        suite = "the whole suite"
    isas = ", ".join(_core.available_isas())
    return [f"fastlstm: {LSTM(1, 1).isa} by default, of {isas}", f"fastlstm: {suite}"]


def is_slow(item: pytest.Item) -> bool:
    """Tell whether a mark `slow` is for a test as it is, or for these of its parameters.

    A mark for kernels that are slow beside others is for none where there are no others.
    """
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return any(
        all(name in parameters and parameters[name] == value for name, value in mark.kwargs.items())
        for mark in item.iter_markers("slow")
        if mark.kwargs != {"isa": _core.default_isa()}
    )


@pytest.hookimpl(tryfirst=True)  # before -m, which is to see the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    fastest = {_core.available_isas()[0], _core.quantized_isas()[0]}
    for item in items:
        if "isa" in getattr(item, "fixturenames", ()):
            item.add_marker("every_isa")
            if hasattr(item, "callspec") and item.callspec.params.get("isa") not in fastest:
                item.add_marker("other_isa")
    if config.getoption("slow"):
        left_out = [item for item in items if not is_slow(item)]
    # Who names a single test wants it.
    elif config.getoption("all") or any("::" in argument for argument in config.args):
        left_out = []
    else:
        left_out = [item for item in items if is_slow(item)]
    config.hook.pytest_deselected(items=left_out)
    gone = set(left_out)
    items[:] = [item for item in items if item not in gone]


@pytest.fixture(scope="session", autouse=True)
def interrupts_are_heeded() -> Iterator[None]:
    """A shell's background jobs begin with Ctrl-C ignored: calls without an end would have none."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(params=_core.available_isas())
def isa(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Any:
    return request.param
