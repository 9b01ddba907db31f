"""Values of a shape that are no real numbers."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np

NOT_REAL: list[Callable[[tuple[int, ...]], Any]] = [
    lambda shape: np.ones(shape, np.complex64),
    lambda shape: np.ones(shape, object),
    lambda shape: np.full(shape, "1"),
    lambda shape: np.full(shape, b"1"),
    lambda shape: np.full(shape, datetime.datetime(2000, 1, 1), "datetime64[s]"),
    lambda shape: np.zeros(shape, [("a", np.float32)]),
    lambda shape: np.ma.masked_all(shape, np.float32),
    lambda shape: object(),
    lambda shape: None,
    lambda shape: "text",
    lambda shape: {"a": 1},
]
