"""Several heads in a `Trainer`: sequences with an answer for each, and what does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fastlstm import LSTM, BiLSTM, optim
from fastlstm.training import HeadSpec, Network, Scaling, Sequences, Trainer
from support.arrays import assert_same_bits
from support.training_runs import CE

pytestmark = pytest.mark.default_isa


def test_heads_are_accumulated_by_their_own_weights() -> None:
    rng = np.random.default_rng(0)
    x, lengths = rng.normal(size=(6, 8, 3)), np.arange(1, 9).clip(max=6)
    y = {"a": rng.integers(0, 2, (6, 8)), "b": rng.normal(size=(6, 8, 1))}
    heads = {"a": HeadSpec(2, loss=CE, class_weights=[1.0, 3.0]), "b": HeadSpec(1)}

    def network() -> Network:
        return Network(LSTM(3, 5, dtype=np.float64, seed=0), heads=heads, seed=0)

    def trained(**options: Any) -> Trainer:
        data = Sequences(x, y, lengths=lengths)
        trainer = Trainer(network(), data, None, optim.SGD(0.1), epochs=2, **options)
        trainer.fit()
        return trainer

    large, parts = trained(batch_size=8), trained(batch_size=3, accumulate=3)
    assert_allclose(parts.network.parameters, large.network.parameters, rtol=1e-12, atol=1e-15)


def test_heads_are_trained_as_by_train_step() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 10, 3))
    y = {"tag": rng.integers(0, 3, (6, 10)), "level": rng.normal(size=(6, 10, 2))}
    weights = {"tag": rng.integers(0, 2, (6, 10)), "level": None}
    heads = {"tag": HeadSpec(3, loss=CE), "level": HeadSpec(2, loss="mae", weight=0.5)}

    def network() -> Network:
        return Network(LSTM(3, 5, seed=0), heads=heads, seed=0)

    data = Sequences(x, y, weights)
    training, validation = data.split(0.3, seed=1)
    metrics = {"tag": ["accuracy"], "level": ["rmse", "mae"]}
    trainer = Trainer(
        network(), training, validation, optim.Adam(0.01), epochs=3, batch_size=3, metrics=metrics
    )
    by_hand, optimizer = network(), optim.Adam(0.01)
    for _ in range(3):
        for _ in range(3):
            rows = training.rows[trainer._order[3 * trainer.position :][:3]]
            by_hand.train_step(
                optimizer,
                x[:, rows],
                {name: part[:, rows] for name, part in y.items()},
                {"tag": weights["tag"][:, rows], "level": None},
                clip=1.0,
            )
            trainer.step()
            assert_same_bits(trainer.network.parameters.copy(), by_hand.parameters.copy())
    rows = validation.rows
    evaluation = by_hand.evaluate(
        x[:, rows],
        {name: part[:, rows] for name, part in y.items()},
        {"tag": weights["tag"][:, rows], "level": None},
    )
    assert trainer.history[-1].metrics == pytest.approx(
        {
            "tag.accuracy": evaluation["tag"].accuracy,
            "level.rmse": evaluation["level"].rmse,
            "level.mae": evaluation["level"].mae,
        }
    )
    assert (data.each_step, data.classes, data.outputs) == (
        True,
        {"tag": True, "level": False},
        {"tag": 3, "level": 2},
    )


def test_heads_that_do_not_fit() -> None:
    x, rng = np.zeros((6, 10, 3)), np.random.default_rng(0)
    heads = {"tag": HeadSpec(3, loss=CE), "level": HeadSpec(2)}
    network = Network(LSTM(3, 5, seed=0), heads=heads, seed=0)
    tag, level = rng.integers(0, 3, (6, 10)), rng.normal(size=(6, 10, 2))
    wrong: list[tuple[Any, str]] = [
        (level, "y is of one head, expected a mapping of the heads' names"),
        ({"tag": tag}, r"y has no answers for head level"),
        ({"tag": tag, "level": level, "x": level}, "y has answers for head x"),
        ({"tag": tag, "level": tag}, r"y\['level'\] holds classes"),
        ({"tag": tag + 1, "level": level}, r"y\['tag'\] has 4 classes"),
        ({"tag": tag, "level": level[..., :1]}, r"y\['level'\] has 1 outputs"),
    ]
    for y, message in wrong:
        with pytest.raises(ValueError, match=f"training: .*{message}"):
            Trainer(network, Sequences(x, y), None, optim.Adam())
    with pytest.raises(ValueError, match=r"y\['level'\]: got shape \(5, 2\)"):
        Sequences(x, {"tag": tag, "level": level[0, :5]})
    with pytest.raises(ValueError, match=r"y: .* of each step and of each sequence"):
        Sequences(x, {"tag": tag, "level": level[0]})
    with pytest.raises(ValueError, match=r"weights: got some for x, expected heads tag, level"):
        Sequences(x, {"tag": tag, "level": level}, {"x": tag})
    with pytest.raises(ValueError, match=r"y\['level'\]: holds NaN or infinity in 60 places"):
        Sequences(x, {"tag": tag, "level": level * np.nan})


def test_heads_with_padding_and_lists() -> None:
    """Lists of arrays, and what weights of 0 at the end mean for a layer that begins there."""
    rng = np.random.default_rng(0)
    lengths = [6, 3, 5, 1]
    x = [rng.normal(size=(n, 3)) for n in lengths]
    tags = [rng.integers(0, 3, n) for n in lengths]
    levels = [rng.normal(size=(n, 2)) for n in lengths]
    heads = {"tag": HeadSpec(3, loss=CE), "level": HeadSpec(2)}

    def trained(data: Sequences) -> Any:
        network = Network(BiLSTM(3, 4, seed=0), heads=heads, seed=0)
        trainer = Trainer(network, data, None, optim.Adam(0.1), epochs=2, batch_size=2)
        trainer.fit()
        return network.parameters.copy()

    listed = Sequences(x, {"tag": tags, "level": levels})
    expected = trained(listed)
    padded = Sequences(listed.x, listed.y, lengths=lengths)
    assert_same_bits(trained(padded), expected)
    there = np.arange(6)[:, np.newaxis] < lengths
    weighted = Sequences(listed.x, listed.y, there)
    with pytest.warns(UserWarning, match="whose x and y are blank: taken for padding"):
        assert_same_bits(trained(weighted), expected)


def test_scaling_leaves_the_answers_of_heads() -> None:
    rng = np.random.default_rng(0)
    x = 100 + 10 * rng.normal(size=(6, 9, 3))
    y = {"tag": rng.integers(0, 3, 9), "level": rng.normal(size=(9, 2))}
    data = Sequences(x, y)
    scaling = Scaling.fit(data)
    assert_allclose(scaling.x_mean, x.mean(axis=(0, 1)))
    assert scaling.leaves_y
    applied = scaling.apply(data, np.dtype(np.float32))
    assert applied.y["level"] is not None
    assert_allclose(applied.y["level"], y["level"])
    assert_allclose(applied.x.mean(axis=(0, 1)), 0, atol=1e-5)
