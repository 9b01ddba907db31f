"""What training refuses: arrays, options, networks and batches that don't fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, optim
from fastlstm.training import Network, Sequences, Trainer, evaluate
from support.arrays import assert_same_bits
from support.training_runs import CE, MSE, B, I, K, T, make_network, make_trainer, random_data

pytestmark = pytest.mark.default_isa


@pytest.mark.parametrize(
    ("x", "y", "w", "message"),
    [
        (np.zeros((T, B)), np.zeros((B, 1)), None, r"x: got shape \(6, 11\), expected \(T, B, I\)"),
        (np.zeros((0, B, I)), np.zeros((B, 1)), None, r"x: got shape \(0, 11, 3\)"),
        (np.zeros((T, B, I), complex), np.zeros((B, 1)), None, "x: got values of dtype complex128"),
        (np.zeros((T, B, I)), np.zeros((B + 1, 1)), None, r"y: got shape \(12, 1\) of float64"),
        (np.zeros((T, B, I)), np.zeros((B, T, 1)), None, r"y: .* expected \(T, B, K\) or \(B, K\)"),
        (np.zeros((T, B, I)), np.zeros((T, B, 0)), None, r"y: got shape \(6, 11, 0\)"),
        (np.zeros((T, B, I)), np.zeros((T, B, 1), int), None, r"expected \(T, B\) or \(B,\)"),
        (np.zeros((T, B, I)), np.full(B, -1), None, "y: got class -1, expected"),
        (np.zeros((T, B, I)), np.zeros(B, "U1"), None, "y: got values of dtype <U1"),
        (np.zeros((T, B, I)), np.zeros(B, int), np.ones((T, B)), r"weights: got shape \(6, 11\)"),
        (np.zeros((T, B, I)), np.zeros(B, int), -np.ones(B), "weights: some are negative"),
        (np.zeros((T, B, I)), np.zeros(B, int), np.zeros(B), "weights: all are 0"),
    ],
)
def test_arrays_that_do_not_fit(x: Any, y: Any, w: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Sequences(x, y, w)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs: got 0"),
        ({"batch_size": 2.0}, "batch_size: got 2.0"),
        ({"schedule": "step"}, "schedule: got 'step', expected one of constant, cosine"),
        ({"clip": 0.0}, r"clip: got 0\.0"),
        ({"clip": "1"}, "clip: got '1', expected a number above 0"),
        ({"schedule": ["cosine"]}, r"schedule: got \['cosine'\], expected a str"),
        ({"optimizer": "adam"}, "optimizer: got str, expected SGD, Adam, AdamW"),
        ({"seed": -1}, "seed: got -1, expected an integer from 0"),
        ({"seed": 2**63}, f"seed: got {2**63}, expected an integer from 0 to {2**63 - 1}"),
        ({"seed": True}, "seed: got True, expected an integer from 0"),
        ({"seed": 1.5}, r"seed: got 1\.5, expected an integer from 0"),
        ({"fraction": 0, "patience": "a"}, "patience: got 'a' of type str, expected an integer"),
        ({"fraction": 0, "patience": 3}, "patience: got a number, but there is no validation"),
    ],
)
def test_options_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make_trainer(**change)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (random_data(CE), "training: y holds classes"),
        (random_data(each_step=True), "training: y has an answer for each step"),
        (Sequences(np.zeros((T, B, 2)), np.zeros((B, 3))), "x has 2 inputs, y has 3 outputs"),
    ],
)
def test_data_that_do_not_fit_the_network(data: Sequences, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trainer(make_network(random_data()), data, None, optim.Adam())


def test_networks_that_cannot_be() -> None:
    with pytest.raises(TypeError, match="lstm: got str"):
        Network("lstm", 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"lstm: got .* expected one that gives all outputs"):
        Network(LSTM(1, 1, return_sequences=False), 1)
    with pytest.raises(ValueError, match="loss: got 'l1', expected one of mse, cross_entropy"):
        Network(LSTM(1, 1), 1, loss="l1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="seed: got 'x'"):
        Network(LSTM(1, 1), 1, seed="x")  # type: ignore[arg-type]
    network = make_network(random_data())
    before = network.parameters.copy()
    with pytest.raises(ValueError, match=r"vector: got shape \(3,\)"):
        network.load_parameters(np.zeros(3))
    assert_same_bits(network.parameters.copy(), before)
    with pytest.raises(ValueError, match="read-only"):
        network.parameters[0] = 1


def test_split_refuses_bad_arguments() -> None:
    data = random_data()
    for fraction in (0, 1.0, -0.5, math.nan, "half"):
        with pytest.raises((TypeError, ValueError), match="fraction: got"):
            data.split(fraction)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x: has 1 sequence, expected at least 2"):
        data.split(0.01)[1].split(0.5)


def test_split_refuses_a_part_without_weight() -> None:
    data = random_data()
    data = Sequences(data.x, data.y, np.arange(B) == 3)
    with pytest.raises(ValueError, match=r"weights: all are 0 in the (training|validation) part"):
        data.split(0.5)


@pytest.mark.parametrize(
    ("loss", "y", "w", "message"),
    [
        (MSE, np.zeros((B, K + 1)), None, r"y: got shape \(11, 5\), expected \(11, 4\)"),
        (MSE, np.zeros((B, K), complex), None, "y: got values of dtype complex128"),
        (CE, np.zeros(B), None, "y: got values of dtype float64, expected integer classes"),
        (CE, np.full(B, K), None, "y: got classes 4 to 4, expected 0 to 3"),
        (CE, np.full(B, -1), None, "y: got classes -1 to -1"),
        (CE, np.zeros(B, int), np.ones(3), r"weights: got shape \(3,\)"),
        (CE, np.zeros(B, int), np.full(B, -1.0), "weights: some are negative"),
        (CE, np.zeros(B, int), np.full(B, np.nan), "weights: some are negative or not finite"),
    ],
)
def test_batches_that_do_not_fit(loss: str, y: Any, w: Any, message: str) -> None:
    data = random_data(loss)
    network, optimizer = make_network(data), optim.Adam()
    before = network.parameters.copy()
    for call in (network.score, network.gradient, lambda *a: network.train_step(optimizer, *a)):
        with pytest.raises((TypeError, ValueError), match=message):
            call(data.x, y, w)
    assert_same_bits(network.parameters.copy(), before)


def test_arguments_of_other_types() -> None:
    data = random_data()
    network = make_network(data)
    with pytest.raises(ValueError, match=r"x: got no steps or no sequences"):
        network.score(data.x[:, :0], data.y[:0])
    with pytest.raises(TypeError, match="clip: got None"):
        network.train_step(optim.Adam(), data.x, data.y, clip=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="optimizer: got int, expected SGD, Adam, AdamW"):
        network.train_step(3, data.x, data.y)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="state: got NoneType, expected a mapping"):
        Trainer(network, data, None, optim.Adam()).load_state_dict(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="network: got LSTM, expected a Network"):
        evaluate(network.lstm, data)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="sequences: got ndarray, expected Sequences"):
        evaluate(network, data.x)
    with pytest.raises(TypeError, match="network: got LSTM, expected a Network"):
        Trainer(network.lstm, data, None, optim.Adam())  # type: ignore[arg-type]
