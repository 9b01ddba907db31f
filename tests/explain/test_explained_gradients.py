"""Gradients by the input against finite differences, for every kind of model and output."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM, explain
from fastlstm.training import Embedding, HeadSpec, Network
from support.arrays import assert_same_bits, finite_differences, relative_difference

RNG = np.random.default_rng(0)
START = RNG.bit_generator.state
LENGTHS = [6, 2, 5]


@pytest.fixture(autouse=True)
def same_numbers_in_any_order() -> None:
    RNG.bit_generator.state = START


def networks() -> dict[str, Any]:
    """Networks of float64, and the output that is explained."""
    options: dict[str, Any] = {"dtype": np.float64, "seed": 0}
    return {
        "each_step": (Network(BiLSTM(3, 4, **options), 2, seed=0), (1, 1)),
        "last": (Network(BiLSTM(3, 4, 2, **options), 2, each_step=False, seed=0), 1),
        "mean": (
            Network(LSTM(3, 4, **options), classes=["no", "yes"], loss="cross_entropy",
                    each_step=False, pooling="mean", seed=0), "yes",
        ),
        "max": (
            Network(LSTM(3, 4, batch_first=True, **options), targets=["a", "b"], each_step=False,
                    pooling="max", seed=0), "b",
        ),
        "hidden": (
            Network(BiLSTM(3, 4, merge_mode="product", **options), 4, each_step=False,
                    hidden=[(4, "tanh"), (4, "silu")], seed=0), 1,
        ),
        "last_step": (
            Network(BiLSTM(3, 4, merge_mode="sum", **options), 2, each_step=False,
                    pooling="last_step", hidden=(4, "sigmoid"), seed=0), 1,
        ),
    }  # fmt: skip


def layers() -> dict[str, Any]:
    options: dict[str, Any] = {"dtype": np.float64, "seed": 0}
    return {
        "LSTM": (LSTM(3, 5, 2, **options), 3),
        "step": (LSTM(3, 5, proj_size=2, peepholes=True, **options), (1, -1)),
        "from the end": (BiLSTM(3, 5, 2, layer_norm=True, **options), (-2, 7)),
        "batch_first": (BiLSTM(3, 5, batch_first=True, merge_mode="sum", **options), (0, 2)),
        "reverse": (LSTM(3, 5, reverse=True, zoneout_h=0.1, zoneout_c=0.2, **options), (0, 2)),
        "last output": (BiLSTM(3, 5, return_sequences=False, dropout=0.5, **options), -1),
    }


CASES = {**layers(), **networks()}


def turned(model: Any, array: np.ndarray) -> np.ndarray:
    lstm = getattr(model, "lstm", model)
    return np.ascontiguousarray(array.swapaxes(0, 1)) if lstm.batch_first else array


def answer(model: Any, x: np.ndarray, output: Any, b: int, n: int) -> float:
    """The number that is explained, of one sequence of a call."""
    lstm = getattr(model, "lstm", model)
    y = model(x, lengths=LENGTHS)
    y = y if isinstance(model, Network) else y[0]
    names = getattr(model, "classes", None) or getattr(model, "targets", None)
    column = names.index(output) if isinstance(output, str) else output
    if y.ndim == 2:
        return float(y[b, column])
    step, column = column if isinstance(column, tuple) else (-1, column)
    y = y.swapaxes(0, 1) if lstm.batch_first else y
    return float(y[:n, b][step, column])


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_finite_differences(name: str) -> None:
    model, output = CASES[name]
    x = turned(model, RNG.normal(size=(6, 3, 3)))
    found = explain.gradients(model, x, output, lengths=LENGTHS)
    expected = np.zeros_like(x)
    for b, n in enumerate(LENGTHS):
        expected += finite_differences(lambda b=b, n=n: answer(model, x, output, b, n), x)
        got = answer(model, x, output, b, n)
        np.testing.assert_allclose(found.output[b], got, rtol=1e-12)
    assert relative_difference(found.values, expected) < 1e-7  # layer_norm bends most
    times = explain.gradients(model, x, output, lengths=LENGTHS, times_input=True)
    np.testing.assert_array_equal(times.values, found.values * x)


@pytest.mark.parametrize("name", CASES)
def test_a_sequence_is_explained_as_if_alone(name: str) -> None:
    model, output = CASES[name]
    x = turned(model, RNG.normal(size=(6, 3, 3)))
    together = explain.gradients(model, x, output, lengths=LENGTHS)
    for b, n in enumerate(LENGTHS):
        own = turned(model, x)[:n, b]
        alone = explain.gradients(model, own, output)
        np.testing.assert_array_equal(turned(model, together.values)[:n, b], alone.values)
        assert alone.output.shape == ()
        assert alone.output == together.output[b]


@pytest.mark.parametrize("name", CASES)
def test_a_mask_is_as_the_steps_alone(name: str) -> None:
    model, output = CASES[name]
    x = RNG.normal(size=(6, 2, 3))
    mask = np.array([[0, 1, 1, 0, 1, 1], [0, 0, 1, 1, 1, 1]]).T.astype(bool)
    found = explain.integrated_gradients(
        model, turned(model, x), output, mask=turned(model, mask), baseline="mean"
    )
    values = turned(model, found.values)
    assert not values[~mask].any()
    baseline = x[mask].mean(axis=0)
    for b in range(2):
        alone = explain.integrated_gradients(model, x[mask[:, b], b], output, baseline=baseline)
        np.testing.assert_allclose(values[mask[:, b], b], alone.values, rtol=1e-12, atol=1e-14)


def test_a_function_of_y_is_explained() -> None:
    layer = BiLSTM(3, 4, dtype=np.float64, batch_first=True, seed=0)
    x = RNG.normal(size=(2, 5, 3))

    def energy(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert y.shape[1:] == (5, 8)
        return (y**2).sum(axis=(1, 2)), 2 * y

    found = explain.gradients(layer, x, energy)
    expected = finite_differences(lambda: float((layer(x)[0] ** 2).sum()), x)
    assert relative_difference(found.values, expected) < 1e-9


def test_a_function_of_a_pair_is_explained() -> None:
    layer = BiLSTM(3, 4, dtype=np.float64, merge_mode=None, seed=0)
    x = RNG.normal(size=(5, 3))

    def both(y: Any) -> Any:
        forward, reverse = y
        return (forward * reverse).sum(axis=(0, 2)), (reverse, forward)

    found = explain.gradients(layer, x, both)
    expected = finite_differences(lambda: float(np.prod(layer(x)[0], axis=0).sum()), x)
    assert relative_difference(found.values, expected) < 1e-9
    with pytest.raises(TypeError, match="output: got 3, expected a function: with merge_mode=None"):
        explain.gradients(layer, x, 3)


def test_an_initial_state_is_where_sequences_begin() -> None:
    layer = LSTM(3, 4, dtype=np.float64, seed=0)
    x, state = RNG.normal(size=(5, 2, 3)), (RNG.normal(size=(1, 2, 4)), RNG.normal(size=(1, 2, 4)))
    found = explain.gradients(layer, x, 1, state=state)
    expected = finite_differences(lambda: float(layer(x, state)[0][-1, :, 1].sum()), x)
    assert relative_difference(found.values, expected) < 1e-9
    path = explain.integrated_gradients(layer, x, 1, state=state, tolerance=1e-9)
    start = layer(np.zeros_like(x), state)[0][-1, :, 1]
    np.testing.assert_allclose(path.baseline_output, start)
    np.testing.assert_allclose(path.values.sum(axis=(0, 2)), path.output - start, atol=1e-9)


def test_tokens_are_explained_by_their_vectors() -> None:
    network = Network(LSTM(4, 5, dtype=np.float64, seed=0), loss="cross_entropy", each_step=False,
                      classes=["a", "b"], embedding=Embedding(7, 4), seed=0)  # fmt: skip
    tokens = RNG.integers(0, 7, (6, 2))
    found = explain.integrated_gradients(network, tokens, "b", tolerance=1e-9)
    assert found.values.shape == (6, 2, 4)
    z = network(tokens)[:, 1]
    np.testing.assert_allclose(found.output, z)
    np.testing.assert_allclose(found.by_step().sum(axis=0), z - found.baseline_output, atol=1e-9)
    with pytest.raises(ValueError, match=r"x: got 7 to 7, expected 0 to 6"):
        explain.gradients(network, [[7]], 0)
    with pytest.raises(TypeError, match="x: got values of dtype float64, expected integers"):
        explain.gradients(network, [[0.5]], 0)


def test_one_of_several_heads_is_explained() -> None:
    heads = {"size": HeadSpec(2), "kind": HeadSpec(loss="cross_entropy", classes=["a", "b", "c"])}
    network = Network(LSTM(3, 4, seed=0), heads=heads, seed=0)
    x = RNG.normal(size=(5, 2, 3))
    found = explain.gradients(network, x, (2, "c"), head="kind")
    np.testing.assert_array_equal(found.output, network(x)["kind"][2, :, 2])
    for head, message in ((None, "head: missing, expected one of size, kind"),
                          ("size2", "head: got 'size2', expected one of size, kind")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            explain.gradients(network, x, 0, head=head)


@pytest.mark.parametrize("explained", [explain.gradients, explain.integrated_gradients])
@pytest.mark.parametrize("kind", ["plain", "variant", "batch_first", "network"])
def test_a_last_step_alone_has_the_bits_of_all_steps(kind: str, explained: Any) -> None:
    model: Any = {
        "plain": lambda: LSTM(3, 5, 2, seed=0),
        "variant": lambda: LSTM(3, 5, 2, proj_size=2, peepholes=True, zoneout_h=0.1, seed=0),
        "batch_first": lambda: LSTM(3, 5, batch_first=True, seed=0),
        "network": lambda: Network(LSTM(3, 5, seed=0), 2, hidden=(4, "tanh"), seed=0),
    }[kind]()
    x = RNG.normal(size=(6, 3, 3)).astype(np.float32)
    state: Any = None
    if kind == "variant":
        state = RNG.normal(size=(2, 3, 2)), RNG.normal(size=(2, 3, 5))

    def by_time(array: np.ndarray) -> np.ndarray:
        return array.swapaxes(0, 1) if kind == "batch_first" else array

    def last_of(y: np.ndarray) -> Any:
        dy = np.zeros_like(y)
        by_time(dy)[-1, :, 1] = 1
        return by_time(y)[-1, :, 1], dy

    found, expected = (explained(model, by_time(x), one, state=state) for one in (1, last_of))
    assert_same_bits(found.values, expected.values)
    assert_same_bits(found.output, expected.output)
    ragged = explained(model, by_time(x), 1, state=state, lengths=[6, 0, 5])
    assert ragged.output[1] == 0
    assert not by_time(ragged.values)[:, 1].any()
    assert_same_bits(by_time(ragged.values)[:, 0], by_time(found.values)[:, 0])
    of_third = None if state is None else tuple(part[:, 2:] for part in state)
    alone = explained(model, by_time(x[:5, 2:]), 1, state=of_third)
    assert_same_bits(by_time(ragged.values)[:5, 2], by_time(alone.values)[:, 0])
    assert_same_bits(ragged.output[2:], alone.output)


def test_many_sequences_run_in_several_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LSTM(3, 4, seed=0)
    x = RNG.normal(size=(5, 7, 3))
    every = [
        explain.gradients(layer, x, 1),
        explain.integrated_gradients(layer, x, 1),
        explain.occlusion(layer, x, 1),
    ]
    for most in (1, 1000):
        monkeypatch.setattr("fastlstm.explain._inputs._MOST", most)
        few = [
            explain.gradients(layer, x, 1),
            explain.integrated_gradients(layer, x, 1),
            explain.occlusion(layer, x, 1),
        ]
        for a, b in zip(few, every, strict=True):
            np.testing.assert_allclose(a.values, b.values, rtol=1e-12, atol=1e-15)


LAYER = LSTM(3, 5, seed=0)
PAIR = BiLSTM(3, 5, merge_mode=None, seed=0)
X = np.zeros((4, 2, 3))


@pytest.mark.parametrize(
    ("model", "x", "output", "options", "error", "message"),
    [
        (3, X, 0, {}, TypeError, "model: got int, expected an LSTM, BiLSTM or Network"),
        (LAYER, X[..., :2], 0, {}, ValueError, r"x: got shape \(4, 2, 2\), expected \(T, B, 3\)"),
        (LAYER, X[:0], 0, {}, ValueError, r"x: got shape \(0, 2, 3\), expected .* none of them 0"),
        (LAYER, X, 5, {}, ValueError, "output: got 5, expected a number from -5 to 4"),
        (LAYER, X, "a", {}, ValueError, "output: got 'a', expected a number from -5 to 4"),
        (LAYER, X, 0.5, {}, TypeError, "output: got 0.5, expected a number"),
        (LAYER, X, True, {}, TypeError, "output: got True, expected a number"),
        (LAYER, X, (0.5, 1), {}, TypeError, "output: got step 0.5, expected an integer"),
        (LAYER, X, (4, 1), {}, ValueError, "output: got step 4, but sequence 0 has 4 steps"),
        (LAYER, X, (2, 1), {"lengths": [4, 1]}, ValueError, "output: got step 2, but sequence 1"),
        (LAYER, X, len, {}, TypeError, "output: the function returned int, expected the values"),
        (LAYER, X, lambda y: (y.sum(), y), {}, ValueError, r"values \(\), expected \(2,\)"),
        (LAYER, X, lambda y: (y[0, :, 0], 0), {}, ValueError, r"a gradient \(\), expected \(4, 2"),
        (
            LAYER,
            X,
            lambda y: (1j * y[0, :, 0], y),
            {},
            TypeError,
            "output: got values of dtype comp",
        ),
        (LAYER, X, lambda y: (y[0, :, 0], "y"), {}, TypeError, "output: got values of dtype <U1"),
        (
            PAIR,
            X,
            lambda y: (y[0][0, :, 0], y[0]),
            {},
            ValueError,
            "returned 1 gradients, expected 2, as y",
        ),
        (LAYER, X, 0, {"head": "a"}, ValueError, "head: got 'a', but a layer has no heads"),
        (LAYER, X, 0, {"lengths": [5, 1]}, ValueError, "lengths: got 1 to 5"),
        (LAYER, X[:, 0], 0, {"mask": 1}, ValueError, r"mask: got shape \(\), expected \(4,\)"),
        (LAYER, X[:, 0], 0, {"mask": [1]}, ValueError, r"mask: got shape \(1,\), expected \(4,\)"),
        (LAYER, X[:, 0], 0, {"lengths": [4]}, ValueError, "lengths: got x of shape"),
        (LAYER, X, 0, {"state": 3}, TypeError, "state: expected a pair"),
        (LAYER, X, 0, {"times_input": 1}, TypeError, "times_input: got"),
        (LSTM(3, 5, return_sequences=False), X, (0, 1), {}, ValueError, "but there is one answer"),
        (fastlstm.quantize(LAYER, 8), X, 0, {}, TypeError, "model: got a layer of 8 bits"),
    ],
)
def test_wrong_arguments_are_named(
    model: Any, x: Any, output: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        explain.gradients(model, x, output, **options)


def test_masked_embeddings_are_refused() -> None:
    embedding = Embedding(5, 3, padding_idx=0, masked=True)
    network = Network(LSTM(3, 4, seed=0), 2, embedding=embedding, seed=0)
    with pytest.raises(ValueError, match=r"^model: its embedding says which steps exist"):
        explain.gradients(network, np.zeros((4, 2), int), 0)


@pytest.mark.parametrize("shape", [(4, 2, 1), (), (0, 2)])
def test_tokens_have_no_axis_of_features(shape: tuple[int, ...]) -> None:
    network = Network(LSTM(3, 4, seed=0), 2, embedding=Embedding(5, 3), seed=0)
    with pytest.raises(ValueError, match=r"x: got shape \(.*\), expected \(T, B\) or \(T,\)"):
        explain.gradients(network, np.zeros(shape, int), 0)
