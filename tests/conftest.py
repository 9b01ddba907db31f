"""Fixtures for all tests: every instruction set of the machine, both precisions."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, _core


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--default-isa-only",
        action="store_true",
        help="leave out the tests that go over all instruction sets whatever FASTLSTM_ISA says",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to run the tests on another instruction set than FASTLSTM_ISA names."""
    asked = os.environ.get("FASTLSTM_ISA")
    if asked and (asked not in _core.available_isas() or LSTM(1, 1).isa != asked):
        pytest.exit(f"FASTLSTM_ISA: layers don't run on {asked!r} here", returncode=3)


def pytest_report_header(config: pytest.Config) -> str:
    return f"fastlstm: {LSTM(1, 1).isa} by default, of {', '.join(_core.available_isas())}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--default-isa-only"):
        names = [getattr(item, "fixturenames", ()) for item in items]
        config.hook.pytest_deselected(
            items=[item for item, used in zip(items, names, strict=True) if "isa" in used]
        )
        items[:] = [item for item, used in zip(items, names, strict=True) if "isa" not in used]


@pytest.fixture(params=_core.available_isas())
def isa(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Any:
    return request.param
