"""Every instruction set that quantised layers have here, in place of those of floats."""

from __future__ import annotations

import pytest

from fastlstm import _core


@pytest.fixture(params=_core.quantized_isas())
def isa(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[8, 16, 24])
def bits(request: pytest.FixtureRequest) -> int:
    return request.param
