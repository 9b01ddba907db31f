"""What else belongs to an LSTM among named arrays: head, state, options in the file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM
from fastlstm.weights.names import find_layers
from support.named_arrays import Arrays, lstm, only, reason

# Head and state


def test_head_and_state_belong_to_the_outermost() -> None:
    extras = {
        "head.weight": np.ones((2, 10)),
        "head.bias": np.ones(2, np.float16),
        "state.h_0": np.ones((4, 5)),
        "state.c_0": np.full((4, 5), 2.0),
    }
    found = only({**lstm(layers=2, directions=2), **extras})
    assert found.head is not None
    assert found.head.weight.dtype == found.head.bias.dtype == np.float32
    assert found.state is not None
    assert found.state[0].dtype == np.float32
    assert found.state[1][0, 0] == 2
    _, _, others = find_layers({**lstm("rnn", layers=2, directions=2), **extras}, None)
    assert {other.name for other in others} == set(extras)


@pytest.mark.parametrize(
    ("extras", "words"),
    [
        ({"head.weight": np.ones((2, 5))}, "head.bias is missing"),
        ({"head.bias": np.ones(2)}, "head.weight is missing"),
        ({"head.weight": np.ones((2, 4)), "head.bias": np.ones(2)}, r"head.weight .* \(N, 5\)"),
        ({"head.weight": np.ones((2, 5)), "head.bias": np.ones(3)}, "head.bias must have shape"),
        ({"head.weight": np.ones((2, 5), int), "head.bias": np.ones(2)}, "head.weight must be fl"),
        ({"state.h_0": np.ones((1, 5))}, "state.c_0 is missing"),
        ({"state.h_0": np.ones((1, 5)), "state.c_0": np.ones((2, 5))}, "state.c_0 must have"),
        ({"state.h_0": np.ones((1, 5)), "state.c_0": np.ones((1, 5), "U1")}, "state.c_0 must be"),
    ],
)
def test_heads_and_states_that_do_not_fit(extras: Arrays, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        raise ValueError(reason({**lstm(), **extras}))


def test_state_of_a_projection() -> None:
    extras = {"state.h_0": np.ones((1, 2)), "state.c_0": np.ones((1, 5))}
    assert only({**lstm(proj_size=2), **extras}).state is not None
    swapped = {"state.h_0": np.ones((1, 5)), "state.c_0": np.ones((1, 2))}
    assert "state.h_0" in reason({**lstm(proj_size=2), **swapped})


# Options in the file


@pytest.mark.parametrize(
    "layer",
    [
        LSTM(3, 5),
        LSTM(3, 5, 2, batch_first=True, dropout=0.5, dtype=np.float64),
        LSTM(3, 5, coupled_gates=True, peepholes=True, layer_norm=True, proj_size=2, bias=False),
        LSTM(3, 5, gate_activation="hard_sigmoid", cell_activation="relu", clip=3, cell_clip=2),
        LSTM(1, 1, zoneout_h=0.1, zoneout_c=1.0, recurrent_dropout=0.2, weight_dropout=0.3),
        BiLSTM(3, 5, 2, merge_mode="sum", return_sequences=False),
        BiLSTM(3, 5, merge_mode=None),
    ],
)
def test_options_come_back(layer: LSTM | BiLSTM) -> None:
    metadata = {"class": type(layer).__name__, "options": layer.options}
    found = only(dict(layer.state_dict()), metadata)
    assert "dtype" not in found.options
    assert found.kind == f"fastlstm {type(layer).__name__}"
    assert not found.notes
    assert found.build().options == layer.options
    np.testing.assert_array_equal(found.build().parameters, layer.parameters)


def test_missing_options_are_the_usual_ones() -> None:
    metadata = {"class": "LSTM", "options": {"input_size": 3, "hidden_size": 5}}
    assert only(lstm(), metadata).build().options == LSTM(3, 5).options


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"seed": 0},
        {"isa": "scalar"},
        {"forget_bias": 1.0},
        {"input_size": 4},
        {"input_size": None},
        {"input_size": True},
        {"input_size": 3.0},
        {"hidden_size": 0},
        {"hidden_size": -5},
        {"hidden_size": 10**9},
        {"hidden_size": 10**400},
        {"num_layers": 2},
        {"num_layers": 10**9},
        {"proj_size": 2},
        {"proj_size": -1},
        {"proj_size": 10**9},
        {"proj_size": "1"},
        {"bias": False},
        {"bias": 1},
        {"bias": []},
        {"batch_first": None},
        {"peepholes": True},
        {"coupled_gates": True},
        {"gate_activation": "exec"},
        {"gate_activation": {"a": 1}},
        {"clip": -1.0},
        {"clip": float("nan")},
        {"clip": 10**400},
        {"cell_clip": "1"},
        {"dropout": 1.5},
        {"zoneout_h": [0.1]},
        {"merge_mode": "sum"},
        {"return_sequences": "yes"},
        {"dtype": "float64"},
        {"dtype": "float16"},
        {"dtype": "O"},
        {"dtype": ["float32"]},
        {"dtype": None},
    ],
)
def test_damaged_options_are_refused(change: dict[str, Any]) -> None:
    options = {**LSTM(3, 5).options, **change}
    assert reason(lstm(), {"class": "LSTM", "options": options})


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"class": "LSTM"},
        {"options": {}},
        {"class": "LSTM", "options": {}},
        {"class": "LSTM", "options": []},
        {"class": "GRU", "options": LSTM(3, 5).options},
        {"class": ["LSTM"], "options": LSTM(3, 5).options},
        {"class": "BiLSTM", "options": LSTM(3, 5).options},
        {"class": "LSTM", "options": LSTM(3, 5).options, "code": "import os"},
    ],
)
def test_damaged_metadata_is_refused(metadata: dict[str, Any]) -> None:
    assert reason(lstm(), metadata)


def test_metadata_without_arrays_or_with_too_many() -> None:
    metadata = {"class": "LSTM", "options": LSTM(3, 5).options}
    found, refused, _ = find_layers(lstm("rnn"), metadata)
    assert [each.name for each in found] == ["rnn"]
    assert "weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0 missing" in refused[0].reason
    assert "not expected" in reason(lstm(peepholes=True), metadata)
    assert "must have shape" in reason(lstm(hidden_size=6), metadata)


def test_head_of_a_merged_bilstm() -> None:
    layer = BiLSTM(3, 5, merge_mode="sum")
    metadata = {"class": "BiLSTM", "options": layer.options}
    arrays = dict(layer.state_dict())
    extras = {"head.weight": np.ones((2, 5)), "head.bias": np.ones(2)}
    assert only({**arrays, **extras}, metadata).head is not None
    extras["head.weight"] = np.ones((2, 10))
    assert "head.weight" in reason({**arrays, **extras}, metadata)
