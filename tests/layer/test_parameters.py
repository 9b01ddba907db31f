"""All parameters in one vector: handing it out, views by name, loading it."""

from __future__ import annotations

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM
from support.arrays import assert_same_bits
from support.layers import results
from support.not_real import NOT_REAL

pytestmark = pytest.mark.default_isa


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("make", [LSTM, BiLSTM])
def test_parameters_lie_as_in_the_state_dict(make: type, bias: bool, dtype: type) -> None:
    layer = make(3, 5, 2, bias=bias, dtype=dtype, seed=1)
    vector = layer.parameters
    arrays = layer.state_dict()
    assert vector.dtype == dtype
    assert_same_bits(vector, np.concatenate([a.ravel() for a in arrays.values()]))
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1
    with pytest.raises(AttributeError):
        layer.parameters = vector.copy()
    views = layer.named_views(vector)
    assert list(views) == list(arrays)
    for name, view in views.items():
        assert_same_bits(view, arrays[name])
        assert np.shares_memory(view, vector)
        assert not view.flags.writeable


def test_parameters_cannot_be_made_writable() -> None:
    vector = LSTM(3, 5).parameters
    with pytest.raises(ValueError, match="WRITEABLE"):
        vector.flags.writeable = True


def test_named_views_of_any_vector() -> None:
    layer = BiLSTM(3, 5, 2, seed=1)
    shapes = {name: array.shape for name, array in layer.state_dict().items()}
    count = layer.parameters.size
    for vector in (
        np.zeros(count, np.float32),
        np.zeros(count),
        np.zeros(count, np.int64),
        np.zeros(2 * count)[::2],
        np.zeros(count)[::-1],
        np.zeros((count, 3))[:, 1],
    ):
        views = layer.named_views(vector)
        assert {name: view.shape for name, view in views.items()} == shapes
        assert all(view.dtype == vector.dtype for view in views.values())
        for k, view in enumerate(views.values()):
            view += k  # goes through to the vector
        sizes = [view.size for view in views.values()]
        assert np.array_equal(vector, np.repeat(np.arange(len(sizes)), sizes))
    first = layer.named_views(np.arange(count))["weight_ih_l0"]
    assert np.array_equal(first, np.arange(60).reshape(20, 3))


def test_load_parameters(isa: str, dtype: type) -> None:
    for make in (LSTM, BiLSTM):
        source = make(3, 9, 2, dtype=dtype, isa=isa, seed=1)
        x = np.random.default_rng(0).normal(size=(4, 3)).astype(dtype)
        expected = results(source(x))
        wide = np.repeat(source.parameters, 2)
        for given in (
            source.parameters,
            source.parameters.copy(),
            source.parameters.astype(np.float64),
            source.parameters.astype(">f8"),
            source.parameters.tolist(),
            wide[::2],
        ):
            target = make(3, 9, 2, dtype=dtype, isa=isa, seed=2)
            before, old = target.parameters, target.parameters.copy()
            assert target.load_parameters(given) is None
            for got, wanted in zip(results(target(x)), expected, strict=True):
                assert_same_bits(got, wanted)
            assert_same_bits(target.parameters, source.parameters)
            assert target.isa == isa
            assert_same_bits(before, old)  # what was handed out holds what it held
        # The layer has its own copy, even of a vector of the right kind.
        mine = source.parameters.copy()
        target.load_parameters(mine)
        assert mine.flags.writeable
        mine[...] = 9
        assert_same_bits(target.parameters, source.parameters)
        for got, wanted in zip(results(target(x)), expected, strict=True):
            assert_same_bits(got, wanted)


def test_load_parameters_equals_load_state_dict() -> None:
    one, other = LSTM(3, 5, 2, seed=1), LSTM(3, 5, 2, seed=2)
    vector = np.random.default_rng(0).normal(size=one.parameters.shape)
    one.load_parameters(vector)
    other.load_state_dict(one.named_views(vector))
    assert_same_bits(one.parameters, other.parameters)


def test_a_stream_keeps_the_parameters_it_was_made_with() -> None:
    layer = LSTM(3, 5, seed=1)
    x = np.ones((4, 3), np.float32)
    expected, _ = layer(x)
    stream = layer.stream()
    layer.load_parameters(0 * layer.parameters)
    assert_same_bits(np.stack([stream.step(x_t).copy() for x_t in x]), expected)


def test_vectors_that_cannot_be_used() -> None:
    layer = BiLSTM(3, 5, 2, seed=1)
    count = layer.parameters.size
    x = np.ones((4, 2, 3), np.float32)
    expected, before = results(layer(x)), layer.parameters.copy()
    for shape in [(count - 1,), (count + 1,), (1, count), (count, 1), (0,), ()]:
        bad = np.ones(shape, np.float32)
        match = rf"^vector: got shape .*, expected that of the parameters, \({count},\)"
        with pytest.raises(ValueError, match=match):
            layer.load_parameters(bad)
        with pytest.raises(ValueError, match=match):
            layer.named_views(bad)
    for make in NOT_REAL:
        with pytest.raises(TypeError, match=r"^vector: got|^vector: cannot"):
            layer.load_parameters(make((count,)))
    for bad in [[1.0] * count, None, "text", 1.0, layer.state_dict()]:
        with pytest.raises(TypeError, match=r"^vector: got .*expected a NumPy array"):
            layer.named_views(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^vector: cannot be made an array"):
        layer.load_parameters([[1.0], [1.0, 2.0]])
    assert_same_bits(layer.parameters, before)
    for got, wanted in zip(results(layer(x)), expected, strict=True):
        assert_same_bits(got, wanted)


def test_any_numbers_are_parameters() -> None:
    layer = LSTM(3, 5, seed=1)
    with np.errstate(all="raise"):
        layer.load_parameters(np.full(layer.parameters.shape, 1e300))
    assert np.isinf(layer.parameters).all()
    layer.load_parameters(np.full(layer.parameters.shape, np.nan))
    assert np.isnan(layer(np.ones((2, 3)))[0]).all()
