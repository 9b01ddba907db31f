"""Predictors: answers as of the model itself, pickles, one packed copy in a process, threads."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM
from fastlstm.distributed import Predictor, _models
from fastlstm.training import Embedding, HeadSpec, Network, Scaling
from support.arrays import assert_same_bits
from support.processes import run_python

T, B, I = 7, 5, 3
SCALING = Scaling(np.array([1.0, 2, 3]), np.array([2.0, 1, 4]), np.array([5.0]), 3.0)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def a_network(outputs: int | None = 2, batch_first: bool = False, **options: Any) -> Network:
    layer = LSTM(I, 8, 2, batch_first=batch_first, seed=0)
    return Network(layer, outputs, seed=1, **options)


MODELS = {
    "layer": LSTM(I, 6, 2, seed=0),
    "float64": LSTM(I, 6, dtype=np.float64, seed=0),
    "batch_first": LSTM(I, 6, batch_first=True, seed=0),
    "last": BiLSTM(I, 6, return_sequences=False, seed=0),
    "sum": BiLSTM(I, 6, merge_mode="sum", peepholes=True, seed=0),
    "8 bits": fastlstm.quantize(BiLSTM(I, 6, seed=0), bits=8),
    "24 bits": fastlstm.quantize(LSTM(I, 6, seed=0), bits=24),
}
NETWORKS = {
    "plain": a_network(),
    "scaled": a_network(1, scaling=SCALING),
    "classes": a_network(None, loss="cross_entropy", classes=["a", "b", "c"]),
    "labels": a_network(3, loss="binary_cross_entropy"),
    "quantiles": a_network(2, loss="pinball", quantiles=[0.1, 0.5, 0.9]),
    "pooled": a_network(each_step=False, pooling="max"),
    "batch_first": a_network(batch_first=True),
    "own loss": a_network(loss=lambda z, y: ((z - y).sum(axis=-1) ** 2, z)),
    "heads": a_network(
        None,
        heads={"level": HeadSpec(1), "kind": HeadSpec(classes=["a", "b"], loss="cross_entropy")},
    ),
}


def same(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for head in expected:
            same(found[head], expected[head])
    elif isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    else:
        assert_same_bits(found, expected)


@pytest.mark.parametrize("name", MODELS)
def test_a_layer_answers_as_it_does_itself(name: str) -> None:
    layer = MODELS[name]
    predictor = pickle.loads(pickle.dumps(Predictor(layer)))
    x = numbers(T, B, I)
    lengths = np.array([7, 0, 3, 7, 1])
    x = x.swapaxes(0, 1) if layer.batch_first else x
    same(predictor(x), layer(x)[0])
    same(predictor(x, lengths=lengths), layer(x, lengths=lengths)[0])
    same(
        predictor(x[0] if layer.batch_first else x[:, 0]),
        layer(x[0] if layer.batch_first else x[:, 0])[0],
    )
    (answer,) = predictor.answers
    assert predictor(x).shape[-1:] == answer.shape
    assert predictor(x).dtype == answer.dtype


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_answers_as_it_does_itself(name: str) -> None:
    network = NETWORKS[name]
    first = network.lstm.batch_first
    x = numbers(T, B, I)
    x = x.swapaxes(0, 1) if first else x
    decides = any(spec.is_decision for spec in network.heads.values())
    for method in ("predict", "call", *(["predict_proba"] if decides else [])):
        ask = network if method == "call" else getattr(network, method)
        predictor = Predictor(network, method=method)
        predictor = pickle.loads(pickle.dumps(predictor))
        lengths = np.array([7, 2, 3, 7, 1])
        same(predictor(x), ask(x))
        same(predictor(x, lengths=lengths), ask(x, lengths=lengths))
        mask = numbers(*x.shape[:2], seed=1) > -1
        same(predictor(x, mask=mask), ask(x, mask=mask))
        listed = [numbers(n, I, seed=n) for n in (3, 1, 6)]
        expected = ask(listed)
        if not network.each_step:
            expected = np.asarray(expected)
        same(predictor(listed), expected)
        made = predictor(x)
        made = made if isinstance(made, dict) else {"": made}
        for answer in predictor.answers:
            steps = 2 if network.each_step else 1
            assert made[answer.head].shape[steps:] == answer.shape
            assert made[answer.head].dtype == answer.dtype


def test_tokens() -> None:
    layer = LSTM(4, 5, seed=0)
    network = Network(layer, 2, embedding=Embedding(9, 4), seed=0)
    predictor = Predictor(network)
    x = np.random.default_rng(0).integers(9, size=(T, B))
    same(predictor(x), network.predict(x))
    same(predictor(x[:, 0]), network.predict(x)[:, 0])
    listed = [x[:3, 0], x[:, 1]]
    same(predictor(listed), network.predict(listed))
    assert not predictor.resumes


@pytest.mark.parametrize("name", ["layer", "float64", "batch_first", "24 bits"])
def test_pieces_of_a_layer(name: str) -> None:
    layer = MODELS[name]
    pieces_have_the_bits_of_the_whole(
        layer, layer(numbers(T, B, I).swapaxes(*(0, int(layer.batch_first))))[0]
    )


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "pooled"])
def test_pieces_of_a_network(name: str) -> None:
    network = NETWORKS[name]
    x = numbers(T, B, I)
    x = x.swapaxes(0, 1) if network.lstm.batch_first else x
    pieces_have_the_bits_of_the_whole(network, network.predict(x))


def pieces_have_the_bits_of_the_whole(model: Any, expected: Any) -> None:
    predictor = Predictor(model)
    first = predictor.layer.batch_first
    x, state, start = numbers(T, B, I), None, 0
    for end in (3, 4, T):
        piece = x[start:end]
        made, state = predictor.resume(piece.swapaxes(0, 1) if first else piece, state)
        whole = expected if isinstance(expected, dict) else {"": expected}
        for head, array in (made if isinstance(made, dict) else {"": made}).items():
            same(array, whole[head][:, start:end] if first else whole[head][start:end])
        start = end


def test_pieces_of_what_needs_the_whole() -> None:
    for model in (MODELS["sum"], MODELS["last"], NETWORKS["pooled"]):
        with pytest.raises(ValueError, match="resume: the model needs whole sequences"):
            Predictor(model).resume(numbers(T, B, I))


def test_missing_steps_are_skipped() -> None:
    x = numbers(T, B, I)
    gaps = np.zeros((T, B), bool)
    gaps[2, 0] = gaps[:, 1] = gaps[5:, 2] = True
    holed = np.where(gaps[..., None] & (np.arange(I) == 1), np.nan, x)
    network = NETWORKS["scaled"]
    found = Predictor(network, missing="skip")(holed)
    same(found, network.predict(x, mask=~gaps))
    assert (np.isnan(found[..., 0]) == gaps).all()
    layer = MODELS["layer"]
    found = Predictor(layer, missing="skip")(holed)
    assert (np.isnan(found).all(axis=-1) == gaps).all()
    same(found[:2, 0], layer(x[:2, 0])[0])
    same(found[3:, 0], layer(np.delete(x[:, 0], 2, axis=0))[0][2:])
    pieces = Predictor(network, missing="skip")
    head, state = pieces.resume(holed[:3])
    tail, _ = pieces.resume(holed[3:], state)
    same(np.concatenate([head, tail]), network.predict(x, mask=~gaps))
    one = Predictor(NETWORKS["pooled"], missing="skip")(holed)
    assert (np.isnan(one).all(axis=-1) == gaps.all(axis=0)).all()
    classes = Predictor(NETWORKS["classes"], missing="skip")(holed)
    assert ((classes == "") == gaps).all()


def test_missing_steps_propagate_or_are_refused() -> None:
    x = numbers(T, B, I)
    x[2, 3, 0] = np.nan
    found = Predictor(NETWORKS["plain"])(x)
    assert np.isnan(found[2:, 3]).all()
    assert not np.isnan(np.delete(found, 3, axis=1)).any()
    with pytest.raises(ValueError, match=r"x: got NaN in 1 steps, the first at \(2, 3\); missing"):
        Predictor(NETWORKS["plain"], missing="raise")(x)
    with pytest.raises(ValueError, match="a class or label can't be NaN"):
        Predictor(NETWORKS["classes"])(x)
    lengths = [T, T, T, 2, T]  # padding may be anything
    same(
        Predictor(NETWORKS["plain"], missing="raise")(x, lengths=lengths),
        NETWORKS["plain"].predict(x, lengths=lengths),
    )


def test_it_keeps_the_parameters_it_was_made_of() -> None:
    layer = LSTM(I, 6, seed=0)
    predictor = Predictor(layer)
    before = layer(numbers(T, B, I))[0]
    layer.load_parameters(layer.parameters * 2)
    same(predictor(numbers(T, B, I)), before)
    assert Predictor(layer).digest != predictor.digest


def test_a_pickle_is_small_and_says_its_format() -> None:
    for size in (64, 200):
        layer = LSTM(size, size, seed=0)
        data = pickle.dumps(Predictor(layer))
        assert len(data) < layer.parameters.nbytes + 5000
    predictor = Predictor(layer)
    state = predictor.__getstate__()
    for wrong in ({**state, "format": 2}, {k: v for k, v in state.items() if k != "format"}):
        other = Predictor.__new__(Predictor)
        with pytest.raises(ValueError, match=r"predictor: got a pickle of format .*same version"):
            other.__setstate__(wrong)


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How often a model is packed, from none on."""
    packed: list[int] = []
    before = _models._unpacked

    def unpacked(*args: Any) -> Any:
        packed.append(1)
        return before(*args)

    monkeypatch.setattr(_models, "_unpacked", unpacked)
    _models._places.clear()
    yield packed
    _models._places.clear()


def test_a_process_packs_a_model_once(no_models: list[int]) -> None:
    data = pickle.dumps(Predictor(LSTM(I, 6, seed=0)))
    x = numbers(T, B, I)
    expected = LSTM(I, 6, seed=0)(x)[0]
    together = threading.Barrier(8)

    def task(number: int) -> None:
        predictor = pickle.loads(data)
        if number < 8:
            together.wait()
        same(predictor(x), expected)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(task, range(100)))
    assert len(no_models) == 1


def test_a_process_keeps_few_models(no_models: list[int]) -> None:
    predictors = [Predictor(LSTM(1, 1, seed=seed)) for seed in range(_models.KEPT + 3)]
    for predictor in predictors:
        predictor.model  # noqa: B018
    assert len(_models._places) == _models.KEPT
    predictors[-1].model  # noqa: B018
    assert len(no_models) == len(predictors)
    predictors[0].model  # noqa: B018
    assert len(no_models) == len(predictors) + 1


def test_threads_are_limited_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    predictor = Predictor(LSTM(I, 6, seed=0), threads=1)
    whole = Predictor._whole

    def watch(self: Predictor, *args: Any) -> Any:
        seen.append(fastlstm.get_num_threads())
        return whole(self, *args)

    monkeypatch.setattr(Predictor, "_whole", watch)
    with fastlstm.num_threads(3):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(predictor, [numbers(T, B, I)] * 20))
        assert fastlstm.get_num_threads() == 3
    assert set(seen) == {1}


class Mine(LSTM):
    """A subclass."""


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"model": "x"}, "model: got str, expected an LSTM, BiLSTM or"),
        ({"model": Mine(1, 1)}, "model: got Mine, expected"),
        ({"model": BiLSTM(1, 1, merge_mode=None)}, "model: got .*merge_mode is None"),
        ({"threads": 0}, "threads: got 0"),
        ({"method": "guess"}, "method: got 'guess', expected one of predict"),
        ({"method": "call"}, "method: got 'call', expected 'predict' of a layer"),
        ({"model": a_network(), "method": "predict_proba"}, "method: got 'predict_proba' of a net"),
        ({"missing": "drop"}, "missing: got 'drop', expected one of propagate"),
        ({"features": [1]}, r"features: got \[1\], expected names of columns"),
        ({"features": ["a", "a"]}, "features: got .*expected different names"),
        ({"time": 1}, "time: got 1, expected the name of a column"),
        ({"name": ""}, "name: got '', expected that of a column"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        Predictor(**{"model": LSTM(1, 1), **arguments})


def test_wrong_inputs() -> None:
    predictor = Predictor(LSTM(I, 6, seed=0))
    with pytest.raises(TypeError, match="x: got values of dtype complex128"):
        predictor(np.ones((T, B, I), complex))
    with pytest.raises(ValueError, match=r"x: got shape \(2, 2, 2, 2\)"):
        predictor(np.ones((2, 2, 2, 2)))
    with pytest.raises(ValueError, match="lengths, mask: got one beside a table"):
        predictor({"x": np.ones((B, T, I))}, lengths=[1])


def test_the_engines_are_not_imported() -> None:
    code = "import sys, fastlstm.distributed; print(*sorted(sys.modules))"
    modules = run_python(code, PYTHONPATH=":".join(sys.path)).stdout.split()
    assert "fastlstm.distributed" in modules
    assert not {"dask", "ray", "pyspark", "pandas", "pyarrow", "xarray"}.intersection(modules)
