"""Layers as ONNX models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM
from fastlstm.weights.contents import Head
from support.layers import random_state, results
from support.onnx_models import (
    Array,
    difference,
    linear_head,
    only,
    onnx,
    read,
    reader,
    run_ort,
    write,
)


def random_layer(rng: np.random.Generator, seed: int, **more: Any) -> LSTM | BiLSTM:
    def pick(*choices: Any) -> Any:
        return choices[rng.integers(len(choices))]

    options: dict[str, Any] = {
        "bias": pick(True, False),
        "batch_first": pick(True, False),
        "peepholes": pick(True, False),
        "coupled_gates": pick(True, False),
        "gate_activation": pick("sigmoid", "hard_sigmoid"),
        "cell_activation": pick("tanh", "relu", "identity", "sigmoid"),
        "output_activation": pick("tanh", "identity", "hard_sigmoid"),
        "clip": pick(None, None, 0.7, 3.0),
        "return_sequences": pick(True, True, False),
        "dropout": pick(0.0, 0.3),
        **more,
    }
    kind = pick(LSTM, BiLSTM) if "reverse" not in more else LSTM
    if kind is BiLSTM:
        options["merge_mode"] = pick("concat", "sum", "mean", "product", None)
    I, H, L = pick(1, 2, 7, 16), pick(1, 3, 5, 17), pick(1, 1, 2, 3)
    return kind(I, H, L, seed=seed, **options)


def fixed_state(rng: np.random.Generator, layer: LSTM | BiLSTM) -> tuple[Array, Array]:
    shape = (layer.num_layers * layer.num_directions, layer.hidden_size)
    return random_state(rng, shape, layer.dtype)


def without_rates(layer: LSTM | BiLSTM) -> dict[str, Any]:
    rates = ("dropout", "recurrent_dropout", "weight_dropout")
    return {key: value for key, value in layer.options.items() if key not in rates}


def check_round_trip(tmp_path: Path, layer: LSTM | BiLSTM, seed: int) -> float:
    """Write, read, write, and run in ONNX Runtime; return how far that is from the layer."""
    rng = np.random.default_rng(seed)
    state = fixed_state(rng, layer) if seed % 3 == 0 else None
    head = linear_head(rng, layer) if seed % 2 and layer.merge_mode is not None else None
    path = tmp_path / "model.onnx"
    data = write(path, layer, head, state)
    assert data == write(path, layer, head, state)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)

    found = only(reader.read(path))
    assert found.name == ("lstm" if layer.num_layers == 1 else "lstm_l0")
    assert not [note for note in found.notes if "forget" not in note]
    again = found.build()
    assert without_rates(again) == without_rates(layer)
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], array)
    assert data == write(tmp_path / "again.onnx", again, found.head, found.state)

    T, B = int(rng.integers(1, 9)), int(rng.integers(1, 5))
    x = rng.normal(size=(T, B, layer.input_size)).astype(layer.dtype)
    x = x.swapaxes(0, 1).copy() if layer.batch_first else x
    feeds = {"x": x}
    if state is None:
        rows = layer.num_layers * layer.num_directions
        given = random_state(rng, (rows, B, layer.hidden_size), layer.dtype)
        feeds |= dict(zip(("h_0", "c_0"), given, strict=True))
    else:
        given = tuple(np.repeat(array[:, np.newaxis], B, 1) for array in state)
    y, last = layer(x, given)
    expected = [*(y if isinstance(y, tuple) else (y,)), *last]
    if head is not None:
        expected.append(y @ head.weight.T + head.bias)
    assert [each.name for each in model.graph.input] == list(feeds)
    return difference(run_ort(model, feeds), expected)


def test_random_layers_as_models(tmp_path: Path) -> None:
    """36 of them, with all options that ONNX has."""
    worst = 0.0
    for seed in range(36):
        layer = random_layer(np.random.default_rng([seed, 7]), seed)
        worst = max(worst, check_round_trip(tmp_path, layer, seed))
    assert worst <= 1e-6


def test_reverse_layers_as_models(tmp_path: Path) -> None:
    for seed in range(6):
        layer = random_layer(np.random.default_rng([seed, 8]), seed, reverse=True)
        assert check_round_trip(tmp_path, layer, seed) <= 1e-6


@pytest.mark.parametrize("kind", [LSTM, BiLSTM])
def test_float64_as_a_model(tmp_path: Path, kind: type[LSTM] | type[BiLSTM]) -> None:
    """ONNX Runtime has no such LSTM; ONNX's own evaluator has, one that is slow."""
    from onnx.reference import ReferenceEvaluator

    layer = kind(3, 5, dtype=np.float64, seed=0, clip=0.1)  # which is no float32
    path = tmp_path / "model.onnx"
    data = write(path, layer)
    found = only(reader.read(path))
    assert found.options["clip"] == 0.1
    assert write(path, found.build()) == data

    plain = kind(3, 5, dtype=np.float64, seed=0)
    data = write(path, plain)
    assert only(reader.read(path)).build().dtype == np.float64
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 2, 3))
    h_0, c_0 = random_state(rng, (plain.num_directions, 2, 5), np.float64)
    got = ReferenceEvaluator(model).run(None, {"x": x, "h_0": h_0, "c_0": c_0})
    assert difference(results(plain(x, (h_0, c_0)))[:1], got[:1]) <= 1e-13


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proj_size": 2}, "proj_size: 2 can't be saved as ONNX"),
        ({"layer_norm": True}, "layer_norm: True can't be saved as ONNX"),
        ({"cell_clip": 3.0}, "cell_clip: 3.0 can't be saved as ONNX"),
        ({"zoneout_h": 0.1}, "zoneout_h: 0.1 can't be saved as ONNX"),
        ({"zoneout_c": 0.1}, "zoneout_c: 0.1 can't be saved as ONNX"),
    ],
)
def test_options_that_onnx_lacks(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        write(path, LSTM(3, 5, **options))
    assert not path.exists()


def test_heads_and_states_that_do_not_fit() -> None:
    layer, pair = LSTM(3, 5), BiLSTM(3, 5, merge_mode=None)
    for head in (Head(np.ones((2, 4)), np.ones(2)), Head(np.ones((2, 5)), np.ones(3))):
        with pytest.raises(ValueError, match=r"^head"):
            reader.to_onnx(layer, head=head)
    with pytest.raises(ValueError, match=r"^head"):
        reader.to_onnx(pair, head=Head(np.ones((2, 5)), np.ones(2)))
    with pytest.raises(ValueError, match=r"^c_0: got shape"):
        reader.to_onnx(layer, state=(np.ones((1, 5)), np.ones((1, 2, 5))))


def changed_options(model: Any, **changed: Any) -> Any:

    (entry,) = model.metadata_props
    told = json.loads(entry.value)
    told["options"] |= changed
    entry.value = json.dumps(told)
    return model


def test_what_a_model_says_of_itself_is_checked(tmp_path: Path) -> None:
    layer = BiLSTM(3, 5, 2, batch_first=True, merge_mode="sum", seed=0)
    note = "what fastlstm wrote of its options into the file is not used: "

    def model() -> Any:
        return reader.to_onnx(layer)

    assert only(read(tmp_path, model())).options["merge_mode"] == "sum"
    for changed in (
        {"merge_mode": "mean"},
        {"merge_mode": "concat"},
        {"merge_mode": None},
        {"merge_mode": "whatever"},
        {"merge_mode": ["sum"]},
        {"batch_first": False},
        {"batch_first": 1},
        {"return_sequences": False},
    ):
        found = only(read(tmp_path, changed_options(model(), **changed)))
        assert found.notes == (f"{note}the graph is another one",)
        assert found.options == {"input_size": 3, "hidden_size": 5, "num_layers": 2}
    # What the graph itself says is not asked.
    found = only(read(tmp_path, changed_options(model(), hidden_size=7, clip=1.0, bias=False)))
    assert found.notes == ()
    assert (
        str(found)
        == "lstm_l0: BiLSTM 3 -> 5, 2 layers, batch_first=True, merge_mode='sum', float32"
    )
    # Nor is another graph believed.
    other = model()
    other.graph.node[-1].attribute[0].ints[:] = [0, 1, 2]
    assert only(read(tmp_path, other)).notes == (f"{note}the graph is another one",)
    for text in ("", "{", "[]", "3", '{"options": 3}', "[" * 5000, "x" * 10**6):
        other = model()
        other.metadata_props[0].value = text
        (found_note,) = only(read(tmp_path, other)).notes
        assert found_note.startswith(note)


def test_heads_that_are_damaged(tmp_path: Path) -> None:
    layer = LSTM(3, 5, seed=0)
    model = reader.to_onnx(layer, head=linear_head(np.random.default_rng(0), layer))
    assert only(read(tmp_path, model)).head is not None
    (bias,) = [each for each in model.graph.initializer if each.name == "head.bias"]
    for dims in ([3], [2, 2]):
        bias.dims[:] = dims
        found = only(read(tmp_path, model))
        assert found.head is None
        assert "head" in found.notes[0]
    model.graph.initializer.remove(bias)
    assert only(read(tmp_path, model)).head is None
