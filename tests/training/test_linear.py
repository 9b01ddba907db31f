"""The linear head: one arithmetic, whoever computes it, on however many rows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM, _core, cli, num_threads
from fastlstm._linear import linear, linear_backward
from fastlstm.data import MODELS, load_sst, model_path
from fastlstm.data.features import HORIZONS, gap_masks
from fastlstm.data.models import load_model
from fastlstm.training import Network
from support.optional import require

pytestmark = [pytest.mark.default_isa, pytest.mark.sanitized, pytest.mark.wheel]


def numbers(*shape: int, dtype: Any = np.float32, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def assert_same_bits(got: np.ndarray, expected: np.ndarray) -> None:
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("K", [1, 7, 64, 300])
@pytest.mark.parametrize("N", [1, 5, 16, 50, 131])
def test_a_row_has_its_bits_in_any_company(K: int, N: int, dtype: Any) -> None:
    x, weight = numbers(37, K, dtype=dtype), numbers(N, K, dtype=dtype, seed=4)
    bias = numbers(N, dtype=dtype, seed=5)
    whole = linear(x, weight, bias)
    exact = x.astype(np.longdouble) @ weight.T.astype(np.longdouble) + bias
    bound = (K + 1) * np.finfo(dtype).eps * (np.abs(x) @ np.abs(weight.T) + np.abs(bias))
    assert (np.abs(whole - exact) <= bound).all()
    for isa in _core.available_isas():
        assert_same_bits(linear(x, weight, bias, isa), whole)
    for rows in (1, 2, 3, 8, 30):
        assert_same_bits(linear(x[:rows], weight, bias), whole[:rows])
    for row in (0, 17, 36):
        assert_same_bits(linear(x[row], weight, bias), whole[row])
    for n in (0, N // 2):  # nor do other outputs matter
        assert_same_bits(linear(x, weight[n : n + 1], bias[n : n + 1]), whole[:, n : n + 1])


def test_any_layout(dtype: Any) -> None:
    x, weight, bias = numbers(6, 4, 10, dtype=dtype), numbers(3, 10), numbers(3)
    expected = linear(x.reshape(24, 10), weight, bias).reshape(6, 4, 3)
    assert_same_bits(linear(x, weight, bias), expected)
    assert_same_bits(linear(x, weight.astype(np.float64), bias.astype(np.float64)), expected)
    spread = np.zeros((6, 8, 20), dtype)[:, ::2, ::2]
    spread[...] = x
    assert_same_bits(linear(spread, np.asfortranarray(weight), bias), expected)
    spelled = np.dtype(dtype).newbyteorder(sys.byteorder)
    assert_same_bits(linear(x, weight.astype(spelled), bias.astype(spelled)), expected)
    raw = np.frombuffer(b"." + weight.tobytes() + bias.tobytes(), np.uint8)[1:].view(np.float32)
    assert not raw.flags.aligned
    assert_same_bits(linear(x, raw[:30].reshape(3, 10), raw[30:]), expected)
    swapped = np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)
    assert_same_bits(linear(swapped, weight, bias), expected)
    for shape in ((0, 4, 10), (6, 0, 10), (0, 10)):
        assert linear(np.empty(shape, dtype), weight, bias).shape == (*shape[:-1], 3)


@pytest.mark.parametrize(("rows", "K", "N"), [(1, 1, 1), (300, 7, 33), (257, 16, 1030)])
def test_gradients_have_their_bits_on_any_threads(rows: int, K: int, N: int, dtype: Any) -> None:
    x, weight = numbers(rows, K, dtype=dtype), numbers(N, K, dtype=dtype, seed=4)
    dz = numbers(rows, N, dtype=dtype, seed=5)
    first = None
    for isa in _core.available_isas():
        for threads in (1, 2, 3):
            dweight, dbias = np.full_like(weight, np.nan), np.full(N, np.nan, dtype)
            with num_threads(threads):
                dx = linear_backward(dz, x, weight, dweight, dbias, isa)
                z = linear(x, weight, dbias, isa)
            if first is None:
                first = dx, dweight, dbias, z
            for got, expected in zip((dx, dweight, dbias, z), first, strict=True):
                assert_same_bits(got, expected)
    assert first is not None
    wide = np.longdouble
    exact = dz.astype(wide) @ weight, dz.T.astype(wide) @ x, dz.sum(axis=0, dtype=wide)
    for got, expected in zip(first[:3], exact, strict=True):
        bound = 2 * max(rows, N) * np.finfo(dtype).eps * max(1.0, float(np.abs(expected).max()))
        assert np.abs(got - expected).max() <= bound
    nothing = np.empty((0, K), dtype)
    dweight, dbias = np.full_like(weight, np.nan), np.full(N, np.nan, dtype)
    assert linear_backward(dz[:0], nothing, weight, dweight, dbias).shape == (0, K)
    assert not dweight.any()
    assert not dbias.any()


@pytest.mark.parametrize("N", [1, 2, 17, 1030])
def test_softmax_is_numpy_s(N: int, dtype: Any) -> None:
    z, scales = 5 * numbers(6, N, dtype=dtype), numbers(6, dtype=dtype, seed=1)
    exp = np.exp(z.astype(np.longdouble) - z.max(axis=-1, keepdims=True))
    exact = scales[:, None] * exp / exp.sum(axis=-1, keepdims=True)
    first = None
    for isa in _core.available_isas():
        out, largest, totals = np.empty_like(z), np.empty_like(scales), np.empty_like(scales)
        place = np.empty(6)
        _core.softmax(z, scales, out, largest, totals, place, isa)
        np.testing.assert_allclose(out, exact.astype(dtype), rtol=100 * np.finfo(dtype).eps)
        np.testing.assert_array_equal(place, z.argmax(axis=-1))
        assert_same_bits(largest, z.max(axis=-1))
        first = out if first is None else first
        assert_same_bits(out, first)
    z[1, N // 2] = np.nan
    _core.softmax(z, scales, out, largest, totals, place)
    assert np.isnan(out[1]).all()
    assert_same_bits(np.delete(out, 1, axis=0), np.delete(first, 1, axis=0))
    with pytest.raises(ValueError, match="buffer of size 5 in dimension 0, expected 6"):
        _core.softmax(z, scales[:5], out, largest, totals, place)


def test_what_is_not_finite_stays_in_its_row() -> None:
    x, weight, bias = numbers(5, 9), numbers(4, 9), numbers(4)
    expected = linear(x, weight, bias)
    x[2, 3] = np.nan
    got = linear(x, weight, bias)
    assert np.isnan(got[2]).all()
    assert_same_bits(np.delete(got, 2, axis=0), np.delete(expected, 2, axis=0))


def test_the_core_refuses_what_does_not_fit() -> None:
    x, weight, bias, z = numbers(5, 9), numbers(4, 9), numbers(4), np.zeros((5, 4), np.float32)
    for wrong in (
        (x, weight[:, :8], bias, z),
        (x, weight[:3], bias, z),
        (x, weight, bias, z[:4]),
        (x, weight.astype(np.float64), bias, z),
        (x[:, ::-1], weight, bias, z),
        (x, weight, bias, np.zeros((4, 5), np.float32).T),
    ):
        with pytest.raises(ValueError, match=r"buffer|contiguous"):
            _core.linear(*wrong)
    with pytest.raises(ValueError, match=r"^isa: 'mmx'"):
        _core.linear(x, weight, bias, z, "mmx")
    z.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        _core.linear(x, weight, bias, z)
    assert not z.any()


@pytest.mark.parametrize(
    ("suffix", "each_step"),
    [(".npz", True), (".npz", False), (".onnx", True), (".onnx", False), (".pt", True)],
)
@pytest.mark.parametrize("kind", [LSTM, BiLSTM])
def test_network_and_run_agree_to_the_bit(
    tmp_path: Path, kind: Any, each_step: bool, suffix: str, dtype: Any
) -> None:
    if suffix == ".onnx":
        require("onnx")
    if suffix == ".pt":
        require("torch")
    network = Network(kind(3, 21, 2, dtype=dtype, seed=1), 5, each_step=each_step, seed=2)
    network.save(tmp_path / f"m{suffix}")
    x = numbers(11, 70, 3, dtype=dtype)
    np.save(tmp_path / "x.npy", x)
    for options in ("", "--batch-size 1 --chunk 4", "--batch-size 9"):
        files = [str(tmp_path / name) for name in (f"m{suffix}", "x.npy", "y.npy")]
        arguments = ["run", *files[:2], "-o", files[2], "--force", "--quiet", *options.split()]
        assert cli.main(arguments) == 0
        assert_same_bits(np.load(files[2]), network(x))
    for b in (0, 69):
        one = network(x[:, b : b + 1])
        assert_same_bits(one, network(x)[..., b : b + 1, :])


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("sst")])
def test_bundled_models_and_run_agree_to_the_bit(tmp_path: Path, name: str) -> None:
    sst = load_sst()
    if name == "sst_forecast":
        model = load_model(model_path(name), len(HORIZONS))
        x = model.forecast_input(sst)
    else:
        model = load_model(model_path(name), 1)
        x = model.gapfill_input(sst, gap_masks(len(sst), 400, 700))
    np.save(tmp_path / "x.npy", x)
    files = [str(path) for path in (model_path(name), tmp_path / "x.npy", tmp_path / "y.npy")]
    assert cli.main(["run", *files[:2], "-o", files[2], "--quiet"]) == 0
    y = np.load(files[2])
    assert_same_bits(model.outputs(x), y.astype(np.float64))

    layer = model.layer
    K = len(model.head.bias)
    network = Network(layer, K, seed=0)
    state = {**layer.state_dict(), "head.weight": model.head.weight, "head.bias": model.head.bias}
    network.load_state_dict(state)
    assert_same_bits(network(x), y)
