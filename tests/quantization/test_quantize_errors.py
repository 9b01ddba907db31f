"""What `fastlstm.quantize` refuses, and what quantised layers do; nothing is half changed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM
from fastlstm.optim import Adam
from fastlstm.training import Network
from support.arrays import assert_same_bits

X = np.random.default_rng(0).normal(size=(4, 2, 20)).astype(np.float32)


def refused(kind: type[Exception], match: str, *args: Any) -> None:
    with pytest.raises(kind, match=match):
        fastlstm.quantize(*args)


# Arguments


@pytest.mark.parametrize("bits", [0, 4, 12, 32, -8, 10**30])
def test_other_bits(bits: Any) -> None:
    refused(ValueError, f"^bits: got {bits}, expected 8, 16 or 24$", LSTM(20, 5), bits)


@pytest.mark.parametrize("bits", [8.0, "8", None, [8], np.ones(2), object(), True, np.True_])
def test_bits_that_are_no_number(bits: Any) -> None:
    refused(TypeError, "^bits: got .*, expected 8, 16 or 24$", LSTM(20, 5), bits)


def test_what_is_no_layer() -> None:
    for layer in (None, "LSTM", LSTM, X, LSTM(20, 5).stream()):
        refused(TypeError, "^layer: got .*, expected an LSTM or BiLSTM$", layer)
    model = SimpleNamespace(lstm=LSTM(20, 5))
    refused(
        TypeError,
        "^layer: got SimpleNamespace, expected an LSTM or BiLSTM; its layer is its attribute lstm$",
        model,
    )


def test_layers_of_float64() -> None:
    layer = LSTM(20, 5, dtype=np.float64)
    refused(ValueError, "^dtype: got a layer of float64, expected float32$", layer)


def test_layers_that_are_quantised(bits: int) -> None:
    layer = fastlstm.quantize(BiLSTM(20, 5), bits)
    message = f"^layer: got one of {bits} bits, expected the float32 layer that it was made of$"
    refused(ValueError, message, layer)


def test_layers_that_are_too_wide() -> None:
    refused(
        ValueError,
        "^bits: got 24, whose sums have room for 43690 columns of weights, but the layer has "
        "weight_ih_l0 of 43691, weight_ih_l0_reverse of 43691$",
        BiLSTM(43691, 1),
        24,
    )
    assert fastlstm.quantize(BiLSTM(43691, 1), 16).bits == 16
    refused(
        ValueError,
        "^bits: got 16, whose .* weight_ih_l0 of 65536$",
        LSTM(65536, 1),
        16,
    )
    refused(ValueError, "^bits: got 8, whose .* weight_ih_l0 of 131072$", LSTM(131072, 1))


# Data


def bad(value: float, *place: int) -> np.ndarray:
    x = X.copy()
    x[place] = value
    return x


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (bad(np.nan, 3, 1, 7), ValueError, r"data: got nan at (3, 1, 7), expected finite numbers"),
        (bad(-np.inf, 0, 0, 1)[:, 0], ValueError, r"data: got -inf at (0, 1), expected finite"),
        ([X, bad(np.inf, 2, 0, 0)], ValueError, r"data[1]: got inf at (2, 0, 0), expected finite"),
        (X.astype(np.float64) * 1e300, ValueError, "data: got "),
        (X[..., :7], ValueError, "data: got shape (4, 2, 7), expected (T, B, 20) or (T, 20)"),
        (X[0, 0], ValueError, "data: got shape (20,), expected (T, B, 20) or (T, 20)"),
        ([X, X[None]], ValueError, "data[1]: got shape (1, 4, 2, 20), expected (T, B, 20)"),
        (iter([X, "x"]), TypeError, "data[1]: got values of dtype"),
        ([X, X * 1j], TypeError, "data[1]: got values of dtype complex64"),
        ([X, None], TypeError, "data[1]: got values of dtype object"),
        (np.ma.array(X), TypeError, "data: got a masked array"),
        (7, TypeError, "data: got int, expected an array or an iterable of arrays"),
        ("x", TypeError, "data: got str, expected an array or an iterable of arrays"),
        ({"x": X}, TypeError, "data: got dict, expected an array or an iterable of arrays"),
        ([], ValueError, "data: got no steps, expected some"),
        ([X[:0], X[:, :0]], ValueError, "data: got no steps, expected some"),
        (iter(()), ValueError, "data: got no steps, expected some"),
    ],
)
def test_wrong_data(data: Any, kind: type[Exception], message: str) -> None:
    layer = LSTM(20, 5, seed=0)
    before = layer(X)[0]
    with pytest.raises(kind) as error:
        fastlstm.quantize(layer, 8, data)
    assert str(error.value).startswith(message)
    assert layer.bits is None
    assert_same_bits(layer(X)[0], before)


def test_data_of_batch_first() -> None:
    layer = LSTM(20, 5, batch_first=True)
    refused(
        ValueError, r"^data: got shape \(4, 2, 3\), expected \(B, T, 20\) or", layer, 8, X[..., :3]
    )


def test_what_an_iterable_raises_is_passed_on() -> None:
    def broken() -> Any:
        yield X
        raise KeyError("disk")

    refused(KeyError, "disk", LSTM(20, 5), 8, broken())


# What quantised layers refuse


def test_no_gradients(bits: int) -> None:
    layer = fastlstm.quantize(LSTM(20, 5, dropout=0.5, num_layers=2, seed=0), bits)
    with pytest.raises(TypeError, match=f"^record: the layer is one of {bits} bits, whose results"):
        layer.record(X)
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    with pytest.raises(TypeError, match=r"^record: "):
        layer.record(X, rng=rng)
    assert rng.bit_generator.state == before
    network = Network(layer, 1)
    message = rf"^lstm: the network has one of {bits} bits, which can't be trained"
    with pytest.raises(TypeError, match=message):
        network.gradient(X, np.zeros((*X.shape[:-1], 1)))
    with pytest.raises(TypeError, match=message):
        network.train_step(Adam(), X, np.zeros((*X.shape[:-1], 1)))
    with pytest.raises(TypeError, match=message):
        network.apply(Adam(), np.zeros_like(network.parameters))


def test_no_parameters(bits: int) -> None:
    floats = LSTM(20, 5, seed=0)
    layer = fastlstm.quantize(floats, bits)
    y, parameters = layer(X)[0], layer.parameters
    with pytest.raises(TypeError, match=rf"^load_state_dict: the layer is one of {bits} bits"):
        layer.load_state_dict(floats.state_dict())
    with pytest.raises(TypeError, match=rf"^load_parameters: the layer is one of {bits} bits"):
        layer.load_parameters(floats.parameters)
    assert_same_bits(layer(X)[0], y)
    assert_same_bits(layer.parameters, parameters)


def test_errors_of_calls_are_those_of_float_layers() -> None:
    floats = BiLSTM(20, 5, seed=0)
    layer = fastlstm.quantize(floats)
    calls: list[tuple[Any, dict[str, Any]]] = [
        (X[..., :3], {}),
        (X, {"state": (np.ones((1, 2, 5)), np.ones((2, 2, 5)))}),
        (X, {"lengths": [5, 1]}),
        (X, {"out": np.empty((4, 2, 10))}),
    ]
    for x, keywords in calls:
        with pytest.raises((TypeError, ValueError)) as of_floats:
            floats(x, **keywords)
        with pytest.raises(type(of_floats.value)) as of_bits:
            layer(x, **keywords)
        assert str(of_bits.value) == str(of_floats.value)
    with pytest.raises(TypeError, match=r"^BiLSTM can't be streamed"):
        layer.stream()
