"""Results in arrays of subclasses with ideas of their own: written as the memory that they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM, Gradients
from support.arrays import assert_same_bits


class NoUfuncs(np.ndarray[Any, Any]):
    __array_ufunc__ = None


class OwnAnswers(np.ndarray[Any, Any]):
    def __array_ufunc__(self, *_: Any, **__: Any) -> Any:
        return 7

    def __iadd__(self, _: Any) -> Any:
        return self

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def reshape(self, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        return np.zeros((1, 1))


SUBCLASSES = pytest.mark.parametrize("subclass", [NoUfuncs, OwnAnswers, np.matrix])
RAGGED = ({}, {"lengths": [4, 2]}, {"resets": np.eye(4, 2, dtype=bool)})


def like(array: np.ndarray, subclass: type[Any]) -> Any:
    """Zeros as a subclass where it can be had: a matrix has two axes."""
    if subclass is np.matrix and array.ndim != 2:
        subclass = np.ndarray
    return np.zeros(array.shape, array.dtype).view(subclass)


@SUBCLASSES
@pytest.mark.parametrize("options", RAGGED, ids=["plain", "lengths", "resets"])
@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mean", "product"])
@pytest.mark.parametrize("return_sequences", [True, False])
def test_out(
    merge_mode: str, return_sequences: bool, options: dict[str, Any], subclass: type[Any]
) -> None:
    layer = BiLSTM(3, 5, merge_mode=merge_mode, return_sequences=return_sequences, seed=0)
    x = np.random.default_rng(0).normal(size=(4, 2, 3))
    expected = layer(x, **options)[0]
    out = like(expected, subclass)
    assert layer(x, out=out, **options)[0] is out
    assert_same_bits(out.view(np.ndarray), expected)


@SUBCLASSES
@pytest.mark.parametrize("options", RAGGED, ids=["plain", "lengths", "resets"])
@pytest.mark.parametrize("rates", [{}, {"weight_dropout": 0.5}], ids=["all weights", "some"])
def test_into(rates: dict[str, float], options: dict[str, Any], subclass: type[Any]) -> None:
    layer = LSTM(3, 5, **rates, seed=0)
    x = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    y, _, tape = layer.record(x, rng=1, **options)
    expected = tape.backward(y, keep=True)
    into = Gradients(*(like(array, subclass) for array in expected))
    got = tape.backward(y, into=into)
    for array, given, wanted in zip(got, into, expected, strict=True):
        assert array is given
        assert_same_bits(array.view(np.ndarray), wanted + wanted.dtype.type(0))  # -0 became 0
