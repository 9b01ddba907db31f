"""The cell's own sum: what a layer's states are made of, by its equations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM, explain
from support.layers import random_state

RNG = np.random.default_rng(2)
START = RNG.bit_generator.state
OPTIONS: dict[str, dict[str, Any]] = {
    "usual": {},
    "projected": {"proj_size": 4},
    "peepholes": {"peepholes": True, "coupled_gates": True},
    "zoneout": {"zoneout_c": 0.2},
    "other activations": {"output_activation": "relu", "cell_activation": "identity"},
}


@pytest.fixture(autouse=True)
def same_numbers_in_any_order() -> None:
    RNG.bit_generator.state = START


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("kind", ["LSTM", "reverse", "BiLSTM"])
@pytest.mark.parametrize("ragged", ["batch", "lengths", "resets"])
def test_contributions_add_up_to_the_states(name: str, kind: str, ragged: str) -> None:
    D, reverse = (2, {}) if kind == "BiLSTM" else (1, {"reverse": kind == "reverse"})
    layer = (LSTM, BiLSTM)[D - 1](3, 8, 2, dtype=np.float64, seed=0, **OPTIONS[name], **reverse)
    x = RNG.normal(size=(12, 4, 3))
    h_0, c_0 = random_state(RNG, (2 * D, 4, 8), np.float64)
    state = h_0[..., : layer.output_size], c_0
    keywords: dict[str, Any] = {}
    if ragged == "lengths":
        keywords["lengths"] = [12, 2, 7, 9]
    if ragged == "resets":
        keywords["resets"] = RNG.random((12, 4)) < 0.15
    _, (h_n, c_n) = layer(x, state, **keywords)
    for number in (0, 1):
        for d in range(D):
            found = explain.decompose(layer, x, number=number, direction=d, state=state, **keywords)
            assert found.residual < 1e-14 * 100
            np.testing.assert_array_equal(found.c, c_n[number * D + d])
            np.testing.assert_array_equal(found.h, h_n[number * D + d])
            np.testing.assert_allclose(
                found.hidden.sum(axis=0) + found.hidden_initial, found.h, atol=1e-13
            )
            for step in (0, 1):
                assert explain.decompose(layer, x, number=number, direction=d, step=step,
                                         state=state, **keywords).residual < 1e-12  # fmt: skip


def test_a_contribution_is_what_the_step_put_there() -> None:
    """i g of a step times the forget gates after it, by the equations step by step."""
    layer = LSTM(3, 6, dtype=np.float64, seed=0)
    x = RNG.normal(size=(9, 3))
    trace = layer.trace(x)
    found = explain.decompose(layer, x, step=6)
    for t in range(9):
        expected = trace.i[0, t] * trace.g[0, t] * np.prod(trace.f[0, t + 1 : 7], axis=0)
        np.testing.assert_allclose(found.cell[t], expected if t <= 6 else 0, atol=1e-15)
    before = 0.0
    for t in range(7):
        let_out = trace.o[0, 6] * np.tanh(found.cell[: t + 1].sum(axis=0))
        np.testing.assert_allclose(found.hidden[t], let_out - before, atol=1e-14)
        before = let_out


def test_contributions_to_a_linear_head_add_up() -> None:
    layer, x = BiLSTM(3, 6, dtype=np.float64, batch_first=True, seed=0), RNG.normal(size=(2, 9, 3))
    weight = RNG.normal(size=(4, 12))
    _, (h_n, _) = layer(x)
    total = np.zeros((2, 4))
    for d in range(2):
        found = explain.decompose(layer, x, direction=d)
        assert found.hidden.shape == (2, 9, 6)
        shares = found.of(weight[:, 6 * d : 6 * d + 6])
        assert shares.shape == (2, 9, 4)
        total += shares.sum(axis=1)
    np.testing.assert_allclose(total, np.concatenate(list(h_n), axis=-1) @ weight.T, atol=1e-13)
    assert found.of(weight[0, :6]).shape == (2, 9)
    with pytest.raises(ValueError, match=r"weight: got shape \(4, 12\), expected \(K, 6\) or"):
        found.of(weight)


@pytest.mark.parametrize("bits", [8, 16, 24])
def test_states_of_quantised_layers_are_sums_to_their_precision(bits: int) -> None:
    layer = fastlstm.quantize(LSTM(3, 6, seed=0), bits)
    x = RNG.normal(size=(9, 2, 3))
    found = explain.decompose(layer, x)
    np.testing.assert_array_equal(found.h, layer(x)[0][-1])
    assert found.residual < {8: 1e-3, 16: 1e-5, 24: 1e-6}[bits]
    assert repr(found).startswith("Decomposition(layer 0, cell (9, 2, 6), residual")


@pytest.mark.parametrize(
    ("layer", "options", "error", "message"),
    [
        (3, {}, TypeError, "layer: got int, expected an LSTM or BiLSTM"),
        (
            LSTM(3, 5, cell_clip=0.5),
            {},
            ValueError,
            "layer: has cell_clip=0.5, and its state is no",
        ),
        (LSTM(3, 5, layer_norm=True), {}, ValueError, "layer: has layer_norm=True"),
        (LSTM(3, 5, zoneout_h=0.5), {}, ValueError, "layer: has zoneout_h=0.5"),
        (LSTM(3, 5), {"number": 1}, ValueError, "number: got 1, expected -1 to 0"),
        (LSTM(3, 5), {"direction": 1}, ValueError, "direction: got 1, expected 0 to 0"),
        (LSTM(3, 5), {"number": 0.5}, TypeError, "number: got 0.5, expected an integer"),
        (LSTM(3, 5), {"direction": None}, TypeError, "direction: got None, expected an integer"),
        (LSTM(3, 5), {"step": 1.0}, TypeError, "step: got 1.0, expected an integer"),
        (LSTM(3, 5), {"step": 4}, ValueError, "step: got 4, but sequence 0 has 4 steps"),
        (LSTM(3, 5), {"lengths": [4, 0]}, ValueError, "step: got -1, but sequence 1 has 0 steps"),
    ],
)
def test_wrong_arguments_are_named(
    layer: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        explain.decompose(layer, np.zeros((4, 2, 3)), **options)


def test_no_sequence_has_no_state() -> None:
    with pytest.raises(
        ValueError, match=r"x: got shape \(4, 0, 3\), expected one sequence at least"
    ):
        explain.decompose(LSTM(3, 5), np.zeros((4, 0, 3)))
