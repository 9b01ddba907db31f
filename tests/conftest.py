"""Fixtures for all tests: every instruction set of the machine, both precisions."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM, _core
from fastlstm.weights.names import find_layers

# Set by CI: a compiler or a peer that is missing is then a failure, not a skipped test.
STRICT = os.environ.get("FASTLSTM_TEST_STRICT", "") not in ("", "0")


def missing(what: str) -> None:
    """Skip the test for want of something, or fail it where CI should have had it."""
    if STRICT:
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing", allow_module_level=True)


def require(module: str) -> Any:
    """Import an optional module, or skip the test."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return missing(module)


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


def layer_class(directions: int) -> type[LSTM] | type[BiLSTM]:
    return LSTM if directions == 1 else BiLSTM


def random_state(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Non-zero states, h_0 and c_0 of different scale so that swapping them shows."""
    return rng.normal(size=shape).astype(dtype), (0.5 + rng.normal(size=shape)).astype(dtype)


def results(returned: tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """[y, h_n, c_n] of a call."""
    y, (h_n, c_n) = returned
    return [y, h_n, c_n]


def assert_same_bits(got: np.ndarray, expected: np.ndarray) -> None:
    """Equal dtype, shape and bits: -0 is not 0, and a NaN equals itself."""
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert got.tobytes() == expected.tobytes()


def built(arrays: Mapping[str, np.ndarray]) -> LSTM | BiLSTM:
    """The one layer that arrays by name, as in a file, make."""
    (found,), refused, _ = find_layers(dict(arrays), None)
    assert not refused
    return found.build()
