"""What a network predicts: numbers in y's unit, classes by name, probabilities, quantiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM
from fastlstm.optim import Adam
from fastlstm.training import Embedding, HeadSpec, Network, Scaling, Sequences, Trainer
from support.arrays import assert_same_bits

pytestmark = pytest.mark.default_isa

T, B, I = 6, 4, 3
LENGTHS = np.array([6, 1, 4, 5])


def numbers(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def a_network(outputs: int | None = 3, **options: Any) -> Network:
    return Network(LSTM(I, 8, dtype=np.float64, seed=0), outputs, seed=1, **options)


def softmax(z: np.ndarray) -> np.ndarray:
    exp = np.exp(z.astype(np.longdouble))
    return exp / exp.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("names", [None, ["no", "perhaps", "yes"], [10, 20, 30], [True, False]])
def test_classes(names: list[Any] | None, batch_first: bool) -> None:
    layer = BiLSTM(I, 8, batch_first=batch_first, seed=0)
    K = 3 if names is None else len(names)
    network = Network(layer, K, loss="cross_entropy", classes=names, seed=1)
    x = 3 * numbers(T, B, I)
    x = x.swapaxes(0, 1) if batch_first else x
    present = np.arange(T)[:, None] < LENGTHS
    present = present.T if batch_first else present
    z = network(x, lengths=LENGTHS)
    predicted = network.predict(x, lengths=LENGTHS)
    expected = z.argmax(axis=-1) if names is None else np.array(names)[z.argmax(axis=-1)]
    assert predicted.dtype == expected.dtype
    np.testing.assert_array_equal(predicted[present], expected[present])
    blank = -1 if names is None else np.array(names).dtype.type()
    assert (predicted[~present] == blank).all()
    proba = network.predict_proba(x, lengths=LENGTHS)
    np.testing.assert_allclose(proba[present], softmax(z)[present], rtol=1e-5)
    assert np.isnan(proba[~present]).all()
    plain = network.predict(x)
    assert len(np.unique(plain)) > 1
    one, full = (x[0], plain[0]) if batch_first else (x[:, 0], plain[:, 0])
    np.testing.assert_array_equal(network.predict(one), full)  # (T, I)


def test_lists_and_one_answer() -> None:
    network = a_network(loss="cross_entropy", classes=["a", "b", "c"])
    x = numbers(T, B, I)
    listed = [x[:n, b] for b, n in enumerate(LENGTHS)]
    padded = network.predict(x, lengths=LENGTHS)
    for b, (names, shares) in enumerate(
        zip(network.predict(listed), network.predict_proba(listed), strict=True)
    ):
        np.testing.assert_array_equal(names, padded[: LENGTHS[b], b])
        assert shares.shape == (LENGTHS[b], 3)
    last = a_network(loss="cross_entropy", classes=["a", "b", "c"], each_step=False)
    np.testing.assert_array_equal(last.predict(listed), last.predict(x, lengths=LENGTHS))
    assert last.predict_proba(listed).shape == (B, 3)


def test_labels() -> None:
    network = a_network(loss="binary_cross_entropy", each_step=False)
    x = 5 * numbers(T, 30, I)
    z, labels, proba = network(x), network.predict(x), network.predict_proba(x)
    assert labels.dtype == np.bool_
    assert labels.shape == (30, 3)
    assert labels.any(axis=0).any()
    np.testing.assert_array_equal(labels, z > 0)
    np.testing.assert_allclose(proba, 1 / (1 + np.exp(-z)), rtol=1e-14)
    np.testing.assert_array_equal(labels, proba > 0.5)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
@pytest.mark.parametrize("names", [None, ["a", "b", "c"]])
def test_nan_is_no_class(loss: str, names: Any) -> None:
    options = {"classes": names, "outputs": 3, "loss": loss, "each_step": True}
    network = Network(LSTM(2, 3, seed=0), **options)
    x = np.random.default_rng(0).normal(size=(5, 2, 2)).astype(np.float32)
    good = network.predict(x, lengths=[5, 3])
    x[3, 1] = np.nan  # behind the end of the second
    assert_same_bits(network.predict(x, lengths=[5, 3]), good)
    x[4, 0] = np.nan
    with pytest.raises(ValueError, match=r"^x: 1 of its answers, the first at \(4, 0\), are NaN"):
        network.predict(x, lengths=[5, 3])
    with pytest.raises(ValueError, match=r"^x: 3 of its answers, the first at \(3, 1\), are NaN"):
        network.predict(x)
    assert np.isnan(network.predict_proba(x)[4, 0]).all()
    y = np.zeros((5, 2), int) if loss == "cross_entropy" else np.zeros((5, 2, 3), bool)
    weights = (~np.isnan(x).any(axis=-1)).astype(float)
    for given in (None, weights):  # the step after a gap counts
        with pytest.raises(ValueError, match=r"^x: .* are NaN"):
            network.evaluate(x, y, given)
    weights[3:] = 0
    assert network.evaluate(x, y, weights).weight == weights.sum()


def test_quantiles_do_not_cross() -> None:
    network = a_network(2, loss="pinball", quantiles=[0.1, 0.5, 0.9])
    x = numbers(T, 50, I)
    z, quantiles = network(x).reshape(T, 50, 2, 3), network.predict(x)
    assert (np.diff(z, axis=-1) < 0).any()  # before they are trained
    assert_same_bits(quantiles, np.sort(z, axis=-1))
    y = numbers(T, 50, 2, seed=9)
    spec = network.heads[""]
    sorted_z = quantiles.reshape(T, 50, 6)
    assert spec.score(sorted_z, y, None)[0].loss < spec.score(z.reshape(T, 50, 6), y, None)[0].loss


def test_the_scaling_is_undone() -> None:
    rng = np.random.default_rng(0)
    x = 100 + 20 * rng.normal(size=(T, 60, I))
    y = 1000 + 50 * x[..., :2].cumsum(axis=0)
    data = Sequences(x, y)
    scaling = Scaling.fit(data)
    network = a_network(2, scaling=scaling)
    standardised = scaling.apply(data, network.lstm.dtype)
    z = network(standardised.x)
    assert_same_bits(network.predict(x), z * scaling.y_scale + scaling.y_mean)
    listed = network.predict([x[:n, b] for b, n in enumerate(LENGTHS)])
    assert_same_bits(listed[2], network.predict(x)[: LENGTHS[2], 2])
    before = np.abs(network.predict(x) - y).mean()
    Trainer(network, standardised, None, Adam(1e-2), epochs=30, batch_size=20).fit()
    assert np.abs(network.predict(x) - y).mean() < before / 5
    padded = network.predict(x, lengths=np.full(60, 2))
    assert np.isnan(padded[2:]).all()
    assert_same_bits(padded[:2], network.predict(x)[:2])
    quantiles = a_network(2, loss="pinball", quantiles=[0.2, 0.7], scaling=scaling)
    expected = np.sort(quantiles(standardised.x).reshape(T, 60, 2, 2), axis=-1)
    expected = expected * scaling.y_scale + scaling.y_mean[:, None]
    np.testing.assert_allclose(quantiles.predict(x), expected, rtol=1e-14)
    classes = Sequences(x, rng.integers(0, 2, (T, 60)))
    network = a_network(2, loss="cross_entropy", scaling=Scaling.fit(classes))
    np.testing.assert_array_equal(network.predict(x), network(standardised.x).argmax(axis=-1))


def test_heads() -> None:
    heads = {"amount": HeadSpec(2), "kind": HeadSpec(loss="cross_entropy", classes=["a", "b"])}
    network = a_network(None, heads=heads, embedding=None)
    x = numbers(T, B, I)
    predicted = network.predict(x)
    assert_same_bits(predicted["amount"], network(x)["amount"])
    assert set(np.unique(predicted["kind"])) <= {"a", "b"}
    assert list(network.predict_proba(x)) == ["kind"]
    listed = network.predict([x[:n, b] for b, n in enumerate(LENGTHS)])
    assert [len(each) for each in listed["kind"]] == LENGTHS.tolist()


def test_no_probabilities_of_numbers() -> None:
    with pytest.raises(ValueError, match="predict_proba: the loss is 'mse', expected one of a"):
        a_network().predict_proba(numbers(T, B, I))


def test_metadata_is_a_copy() -> None:
    given = {"version": 3, "sites": ["a", "b"]}
    network = a_network(metadata=given, features=["x", "y", "z"], targets=["a", "b", "c"])
    given["sites"].append("c")
    assert network.metadata == {"version": 3, "sites": ["a", "b"]}
    network.metadata["more"] = 1
    assert network.metadata["more"] == 1
    assert (network.features, network.targets) == (("x", "y", "z"), ("a", "b", "c"))


def made(outputs: Any = 3, **options: Any) -> Any:
    return lambda: a_network(outputs, **options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (made(None), ValueError, "outputs: got None, expected how many"),
        (made(2, classes=["a"], loss="cross_entropy"), ValueError, "classes: got 1 names, expect"),
        (
            made(None, classes=["a", "a"], loss="cross_entropy"),
            ValueError,
            "classes: got 'a' twice",
        ),
        (made(None, classes=["a", 1], loss="cross_entropy"), TypeError, "classes: got .* expected"),
        (made(None, classes="ab", loss="cross_entropy"), TypeError, "classes: got 'ab', expected"),
        (made(None, classes=["a"]), ValueError, "classes: got some with loss='mse'"),
        (made(3, targets=["a", 1, "b"]), TypeError, "targets: got 1 in it, expected strings"),
        (made(3, targets=["a"]), ValueError, "targets: got 1 names, expected 3"),
        (made(3, features=["a"]), ValueError, "features: got 1 names, expected 3"),
        (made(3, quantiles=[0.5]), ValueError, "quantiles: got numbers with loss='mse'"),
        (made(3, loss="pinball"), ValueError, "quantiles: got None with loss='pinball'"),
        (made(3, loss="pinball", quantiles=[0.5, 0.1]), ValueError, "quantiles: got .* rising"),
        (made(3, loss="pinball", quantiles=[0.0]), ValueError, "quantiles: got .* above 0"),
        (made(3, loss="pinball", quantiles=0.5), TypeError, "quantiles: got 0.5, expected a seq"),
        (made(3, class_weights=[1, 1, 1]), ValueError, "class_weights: got some with loss='mse'"),
        (made(3, loss="cross_entropy", class_weights=[1]), ValueError, "class_weights: got 1 of"),
        (made(2, loss="cross_entropy", class_weights=[1, -1]), ValueError, "class_weights: got -1"),
        (made(2, loss="cross_entropy", class_weights=[0, 0]), ValueError, "class_weights: all are"),
        (made(2, loss="cross_entropy", class_weights={5: 1}), ValueError, "class_weights: got cl"),
        (made(3, pooling="mean"), ValueError, "pooling: got 'mean', which is of one answer"),
        (made(3, pooling="sum", each_step=False), ValueError, "pooling: got 'sum', expected last"),
        (made(3, embedding=5), TypeError, "embedding: got int, expected a fastlstm.training.Emb"),
        (made(3, embedding=Embedding(5, 4)), ValueError, "embedding: has vectors of 4 numbers, ex"),
        (made(3, heads={"a": HeadSpec(2)}), ValueError, "outputs: got one beside heads"),
        (made(None, heads={}), TypeError, "heads: got {}, expected a mapping"),
        (made(None, heads={"a": 2}), TypeError, "heads: got 'a': 2, expected a name"),
        (made(None, heads={"a.b": HeadSpec(2)}), ValueError, "heads: got the name 'a.b'"),
        (made(None, heads={"a": HeadSpec(2, weight=0)}), ValueError, "heads: the weights of all"),
        (made(3, metadata={"a": {1}}), TypeError, "metadata: got what JSON does not hold"),
        (made(3, metadata={"a": np.nan}), ValueError, "metadata: got what JSON does not hold"),
        (made(3, metadata=[1]), TypeError, "metadata: got list, expected a mapping"),
        (made(3, scaling=1), TypeError, "scaling: got int, expected a fastlstm.training.Scaling"),
        (made(3, check=True), ValueError, "check: got True with loss='mse'"),
        (lambda: Embedding(0, 2), ValueError, "num_embeddings: got 0"),
        (lambda: Embedding(5, 2, 5), ValueError, "padding_idx: got 5, expected an integer from 0"),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def scaled(**changed: Any) -> Scaling:
    good = {"x_mean": np.zeros(I), "x_scale": np.ones(I), "y_mean": np.zeros(3), "y_scale": 1.0}
    return Scaling(**{**good, **changed})


@pytest.mark.parametrize(
    ("scaling", "options", "message"),
    [
        (scaled(x_mean=np.zeros(2)), {}, r"scaling: got x_mean of shape \(2,\), expected \(3,\)"),
        (scaled(y_mean=np.zeros(2)), {}, r"scaling: got y_mean of shape \(2,\), expected \(3,\)"),
        (scaled(x_scale=np.zeros(I)), {}, "scaling: got x_scale of 0 or below"),
        (scaled(y_scale=np.nan), {}, "scaling: got a y_scale of float64, expected finite floats"),
        (scaled(y_scale=2.0), {"loss": "cross_entropy"}, "scaling: changes y"),
        (scaled(y_mean=np.ones(3)), {"loss": "binary_cross_entropy"}, "scaling: changes y"),
        (
            scaled(x_mean=np.ones(1), x_scale=np.ones(1)),
            {"embedding": Embedding(5, I)},
            "changes x",
        ),
    ],
)
def test_scalings_that_do_not_fit(scaling: Scaling, options: Any, message: str) -> None:
    network = a_network(3, **options)
    with pytest.raises(ValueError, match=message):
        network.scaling = scaling
    assert network.scaling is None


def test_wrong_inputs() -> None:
    network = a_network(3, scaling=scaled())
    with pytest.raises(ValueError, match=r"x: got shape \(6, 4, 2\), expected \(\.\.\., 3\)"):
        network.predict(numbers(T, B, 2))
    words = a_network(3, embedding=Embedding(5, I))
    for x, error, message in (
        (np.full((T, B), 5), ValueError, "x: got 5 to 5, expected integers from 0 to 4"),
        (np.full((T, B), -1), ValueError, r"x: got -1 to -1, .* 24 places, the first at \(0, 0\)"),
        (np.ones((T, B)), TypeError, "x: got values of dtype float64, expected integers"),
        (np.ones((T, B, 2), int), ValueError, r"x: got shape \(6, 4, 2\), expected integers"),
        (np.ones(T, int), ValueError, r"x: got shape \(6,\), expected integers"),
        (np.full((T, B), "a"), TypeError, "x: got values of dtype <U1"),
    ):
        with pytest.raises(error, match=message):
            words.predict(x)


def test_wrong_answers() -> None:
    heads = {"amount": HeadSpec(2), "tags": HeadSpec(2, loss="binary_cross_entropy")}
    network = a_network(None, heads=heads)
    x, good = numbers(T, B, I), {"amount": numbers(T, B, 2), "tags": np.ones((T, B, 2), np.bool_)}
    for y, error, message in (
        (good["amount"], TypeError, "y: got ndarray, expected a mapping of heads' names"),
        ({"amount": good["amount"]}, ValueError, "y: missing or unexpected heads tags"),
        ({**good, "tags": np.full((T, B, 2), 2)}, ValueError, r"y\['tags'\]: got labels 2 to 2"),
        ({**good, "tags": np.ones((T, B))}, ValueError, r"y\['tags'\]: got shape \(6, 4\)"),
        ({**good, "amount": np.full((T, B, 2), np.nan)}, ValueError, r"y\['amount'\]: holds NaN"),
    ):
        with pytest.raises(error, match=message):
            network.gradient(x, y)
    with pytest.raises(ValueError, match=r"weights\['amount'\]: got shape \(4,\)"):
        network.gradient(x, good, {"amount": np.ones(B), "tags": None})
