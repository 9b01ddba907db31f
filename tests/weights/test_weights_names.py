"""LSTMs among named arrays: which are found, stacked, refused, and what is none."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM
from fastlstm.weights.contents import Contents, Other
from fastlstm.weights.names import MOST_OTHERS, find_layers
from support.named_arrays import Arrays, lstm, only, reason


def cell(prefix: str, input_size: int = 3, hidden_size: int = 5, gates: int = 4) -> Arrays:
    rows = gates * hidden_size
    shapes = {
        "weight_ih": (rows, input_size),
        "weight_hh": (rows, hidden_size),
        "bias_ih": (rows,),
        "bias_hh": (rows,),
    }
    rng = np.random.default_rng(6)
    return {f"{prefix}.{k}": rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


# What is found


@pytest.mark.parametrize("prefix", ["", "rnn", "encoder.rnn", "module.0.rnn"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layers": 3},
        {"directions": 2},
        {"layers": 2, "directions": 2, "bias": False},
        {"proj_size": 2},
        {"layers": 2, "directions": 2, "proj_size": 4},
        {"peepholes": True},
        {"layer_norm": True, "layers": 2},
        {"peepholes": True, "layer_norm": True, "proj_size": 2, "directions": 2, "bias": False},
        {"input_size": 1, "hidden_size": 1},
        {"dtype": np.float64},
        {"dtype": np.float16},
    ],
)
def test_each_is_found_and_built(prefix: str, options: dict[str, Any]) -> None:
    arrays = lstm(prefix, **options)
    found = only(arrays)
    assert found.name == prefix
    assert found.bidirectional == (options.get("directions") == 2)
    assert found.stored_dtype == options.get("dtype", np.float32)
    layer = found.build()
    assert layer.num_layers == options.get("layers", 1)
    assert layer.bias == options.get("bias", True)
    assert layer.proj_size == options.get("proj_size", 0)
    assert layer.cell.peepholes == options.get("peepholes", False)
    assert layer.cell.layer_norm == options.get("layer_norm", False)
    built = layer.state_dict()
    assert len(built) == len(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(built[name.removeprefix(prefix).removeprefix(".")], array)


def test_options_hold_sizes_and_what_is_unusual() -> None:
    assert only(lstm()).options == {"input_size": 3, "hidden_size": 5, "num_layers": 1}
    options = only(lstm(bias=False, proj_size=2)).options
    assert options["bias"] is False
    assert options["proj_size"] == 2
    assert len(options) == 5
    assert only(lstm()).kind == "PyTorch LSTM"
    assert only(lstm(peepholes=True)).kind == "fastlstm LSTM"
    assert any("batch" in note for note in only(lstm()).notes)


def test_big_endian_arrays() -> None:
    arrays = {name: array.astype(">f4") for name, array in lstm().items()}
    arrays["weight_hh_l0"] = arrays["weight_hh_l0"].astype("<f4")
    found = only(arrays)
    assert found.stored_dtype == np.float32
    np.testing.assert_array_equal(
        found.build().state_dict()["weight_ih_l0"], arrays["weight_ih_l0"]
    )


def test_cells_and_several_in_the_order_of_the_arrays() -> None:
    arrays = {**lstm("b.rnn"), "b.out": np.ones((2, 5), np.int8), **cell("a"), **lstm("c", 7, 2)}
    found, refused, others = find_layers(arrays, None)
    assert [each.name for each in found] == ["b.rnn", "a", "c"]
    assert [each.kind for each in found] == ["PyTorch LSTM", "PyTorch LSTMCell", "PyTorch LSTM"]
    assert not refused
    assert others == (Other("b.out", "int8 (2, 5)"),)
    np.testing.assert_array_equal(
        found[1].build().state_dict()["weight_hh_l0"], arrays["a.weight_hh"]
    )


def test_cell_without_bias() -> None:
    arrays = {k: v for k, v in cell("a").items() if "bias" not in k}
    assert only(arrays).options["bias"] is False
    del arrays["a.weight_hh"]
    arrays["b.weight_hh"] = np.ones((20, 5), np.float32)  # any module may have such an array
    found, refused, others = find_layers(arrays, None)
    assert not found
    assert not refused
    assert {other.name for other in others} == {"a.weight_ih", "b.weight_hh"}


# What has the names of an LSTM and is none


@pytest.mark.parametrize("hidden_size", [1, 4, 5])
@pytest.mark.parametrize(("gates", "what"), [(3, "GRU"), (1, "plain RNN")])
def test_gru_and_rnn_are_others(hidden_size: int, gates: int, what: str) -> None:
    pytorch = {
        name: array[: gates * hidden_size]
        for name, array in lstm("rnn", 3, hidden_size, 2, 2).items()
    }
    for arrays in (pytorch, cell("rnn", 3, hidden_size, gates)):
        found, refused, others = find_layers(arrays, None)
        assert not found
        assert not refused
        assert len(others) == 1
        assert others[0].name == "rnn"
        assert what in others[0].what


def test_gru_without_a_prefix_has_a_name() -> None:
    arrays = {name: array[:15] for name, array in lstm().items()}
    _, _, others = find_layers({**arrays, "head.weight": np.ones((1, 5))}, None)
    assert [other.name for other in others] == ["weight_ih_l0", "head.weight"]


def test_gru_is_an_lstm_with_coupled_gates_if_the_file_says_so() -> None:
    arrays = lstm(coupled_gates=True)
    metadata = {"class": "LSTM", "options": LSTM(3, 5, coupled_gates=True).options}
    assert only(arrays, metadata).build().cell.coupled_gates


# Stacks


def single(names: list[str], **options: Any) -> Arrays:
    arrays: Arrays = {}
    for number, name in enumerate(names):
        arrays |= lstm(name, 5 * options.get("directions", 1) if number else 3, 5, **options)
    return arrays


@pytest.mark.parametrize(
    ("names", "stack"),
    [
        (["lstm.0", "lstm.1"], "lstm"),
        (["lstm1", "lstm2", "lstm3"], "lstm"),
        (["lstm_7", "lstm_8"], "lstm"),
        (["encoder.lstm-0", "encoder.lstm-1"], "encoder.lstm"),
        (["rnn_layers.0.cell", "rnn_layers.1.cell"], "rnn_layers.*.cell"),
        (["net.0.lstm.9", "net.0.lstm.10", "net.0.lstm.11"], "net.0.lstm"),
        (["lstm", "lstm_1", "lstm_2"], "lstm_*"),
        (["0", "1"], "*"),
        (["l1.a2", "l2.a2"], "l*.a2"),
    ],
)
@pytest.mark.parametrize("directions", [1, 2])
def test_numbered_layers_are_a_stack(names: list[str], stack: str, directions: int) -> None:
    arrays = single(names, directions=directions)
    found = only(arrays)
    assert found.name == stack
    assert [part.name for part in found.parts] == names
    assert any("between the layers" in note for note in found.notes)
    layer = found.build()
    assert layer.num_layers == len(names)
    whole = layer.state_dict()
    for number, part in enumerate(found.parts):
        for name, array in part.build().state_dict().items():
            np.testing.assert_array_equal(whole[name.replace("_l0", f"_l{number}")], array)


@pytest.mark.parametrize(
    "others",
    [
        {"models.0.emb.weight": np.ones((7, 3))},  # an ensemble
        {"models.1.out.weight": np.ones((2, 5))},
        {"models.1.batch_norm.weight": np.ones(5)},  # between the layers
        lstm("models.1.other", 5, 4),
    ],
)
def test_what_else_is_numbered_speaks_against_a_stack(others: Arrays) -> None:
    arrays = {**lstm("models.0.lstm", 5, 5), **lstm("models.1.lstm", 5, 5)}
    assert only(arrays).parts
    found, _, _ = find_layers(arrays | others, None)
    assert [each.name for each in found][:2] == ["models.0.lstm", "models.1.lstm"]
    assert not any(each.parts for each in found)


def test_a_stack_by_names_is_asked_for() -> None:
    """Twin critics have the names of a stack, too."""
    found, _, _ = find_layers({**lstm("q1", 5, 5), **lstm("q2", 5, 5)}, None)
    contents = Contents(Path("m.pt"), "PyTorch", found)
    with pytest.raises(ValueError, match=r"m\.pt: holds 2 LSTMs that by names .* q: .*q1: .*q2: "):
        contents.choose()
    assert contents.choose("q").options["num_layers"] == 2
    assert contents.choose("q2").options["num_layers"] == 1


@pytest.mark.parametrize(
    "others",
    [
        {"rnn.cell.layernorm_i.weight": np.ones(20)},
        {"rnn.cell.weight_ci": np.ones(5)},
        {"rnn.cell.h_0": np.ones(5)},
    ],
)
def test_a_cell_with_more_than_pytorchs_is_refused(others: Arrays) -> None:
    for arrays in (cell("rnn.cell", 3, 5), lstm("rnn.cell", 3, 5)):
        found, (refused,), _ = find_layers(arrays | others, None)
        assert not found
        assert refused.name == "rnn.cell"
        assert next(iter(others)) in refused.reason


def test_copies_of_raw_weights_are_not_taken_for_the_weights() -> None:
    """AWD-LSTM keeps U as weight_hh_l0_raw; the module's own is one with numbers dropped."""
    arrays = lstm("rnn.module", 3, 5)
    arrays["rnn.weight_hh_l0_raw"] = np.ones((20, 5), np.float32)
    found = only(arrays)
    np.testing.assert_array_equal(found.arrays["weight_hh_l0"], np.ones((20, 5)))
    assert any("weight drop" in note for note in found.notes)
    arrays["rnn.weight_hh_l0_raw"] = np.ones((20, 4), np.float32)
    found, (refused,), _ = find_layers(arrays, None)
    assert not found
    assert "rnn.weight_hh_l0_raw" in refused.reason


def test_a_stack_of_cells_computes_what_its_parts_do() -> None:
    found = only({**cell("rnn.cell0", 3, 5), **cell("rnn.cell1", 5, 5), **cell("rnn.cell2", 5, 5)})
    assert found.name == "rnn.cell"
    x = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
    y, (h_n, c_n) = found.build()(x)
    for number, part in enumerate(found.parts):
        x, (h, c) = part.build()(x)
        np.testing.assert_array_equal(h_n[number], h[0])
        np.testing.assert_array_equal(c_n[number], c[0])
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize(
    "arrays",
    [
        {**lstm("lstm.0", 3, 5), **lstm("lstm.2", 5, 5)},  # a gap
        {**lstm("lstm.0", 3, 5), **lstm("lstm.1", 4, 5)},  # the input is no output
        {**lstm("lstm.0", 3, 5), **lstm("lstm.1", 5, 6)},  # another size
        {**lstm("lstm.0", 3, 5), **lstm("lstm.1", 5, 5, bias=False)},
        {**lstm("lstm.0", 3, 5), **lstm("lstm.1", 5, 5, dtype=np.float64)},
        {**lstm("lstm.0", 3, 5), **lstm("lstm.1", 5, 5, peepholes=True)},
        {**lstm("lstm.0", 3, 5), **lstm("lstm.1", 5, 5, directions=2)},
        {**lstm("lstm.0", 3, 5, directions=2), **lstm("lstm.1", 5, 5, directions=2)},
        {**lstm("lstm.0", 3, 5, 2), **lstm("lstm.1", 5, 5)},
        {**lstm("lstm.0", 3, 5), **lstm("lstm.1", 5, 5, 2)},
        {**lstm("lstm.0", 3, 5), **cell("lstm.1", 5, 5)},
        {**lstm("a", 3, 5), **lstm("b", 5, 5)},
        {**lstm("q1.lstm1", 3, 5), **lstm("q2.lstm2", 5, 5)},  # two numbers differ
    ],
)
def test_others_are_no_stack(arrays: Arrays) -> None:
    found, refused, _ = find_layers(arrays, None)
    assert not refused
    assert len(found) == 2
    assert not any(each.parts for each in found)


def test_the_last_number_that_fits_counts_layers() -> None:
    arrays: Arrays = {}
    for block in range(2):
        arrays |= {**lstm(f"block.{block}.lstm1", 5, 5), **lstm(f"block.{block}.lstm2", 5, 5)}
    found, _, _ = find_layers(arrays, None)
    assert [each.name for each in found] == ["block.0.lstm", "block.1.lstm"]


def test_a_stack_stands_where_its_first_layer_does() -> None:
    arrays = {**lstm("x", 2, 2), **lstm("r1", 3, 5), **lstm("y", 2, 2), **lstm("r2", 5, 5)}
    found, _, _ = find_layers(arrays, None)
    assert [each.name for each in found] == ["x", "r", "y"]


# What is refused


def without(arrays: Arrays, *names: str) -> Arrays:
    return {name: array for name, array in arrays.items() if name not in names}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (without(lstm(), "bias_hh_l0"), ["bias_hh_l0 missing"]),
        (without(lstm(), "weight_hh_l0"), ["weight_hh_l0 missing"]),
        (without(lstm(), "weight_hh_l0", "weight_ih_l0"), ["weight_ih_l0, weight_hh_l0 missing"]),
        (without(lstm(layers=3), "weight_ih_l1", "bias_ih_l2"), ["weight_ih_l1, bias_ih_l2"]),
        (without(lstm(directions=2), "weight_hh_l0_reverse"), ["two directions", "_reverse"]),
        (without(lstm(peepholes=True), "weight_cf_l0"), ["weight_cf_l0 missing", "peepholes"]),
        (without(lstm(proj_size=2, layers=2), "weight_hr_l0"), ["weight_hr_l0 missing"]),
        (lstm() | {"weight_ih_l2": np.ones((20, 5), np.float32)}, ["layer 1", "layer 2"]),
        (lstm() | {"weight_hh_l0": np.ones((20, 6), np.float32)}, ["weight_ih_l0 must", "(24, 3)"]),
        (lstm() | {"weight_ih_l0": np.ones((20,), np.float32)}, ["weight_ih_l0", "two dimensions"]),
        (lstm() | {"weight_ih_l0": np.ones((20, 0), np.float32)}, ["weight_ih_l0", "none of them"]),
        (lstm() | {"bias_ih_l0": np.ones((20, 1), np.float32)}, ["bias_ih_l0", "(20, 1)"]),
        (lstm(dtype=np.int8), ["weight_ih_l0 must be float", "bias_hh_l0 must be float"]),
        (lstm() | {"bias_ih_l0": np.ones(20)}, ["mixed", "bias_ih_l0 is float64"]),
        (lstm() | {"bias_ih_l0": np.ones(20, np.longdouble)}, ["bias_ih_l0 must be float16"]),
        (lstm() | {"weight_hr_l0": np.ones((5, 5), np.float32)}, ["5 numbers to 5"]),
        (without(lstm(), "weight_hh_l0") | {"weight_hh_l0_v": np.ones(2)}, ["remove weight_norm"]),
    ],
)
def test_problems_are_named(arrays: Arrays, words: list[str]) -> None:
    for prefix in ("", "a.b."):
        text = reason({prefix + name: array for name, array in arrays.items()})
        for word in words:
            assert word in text


def test_a_refused_lstm_leaves_the_others() -> None:
    arrays = {**lstm("good"), **without(lstm("bad"), "bad.weight_hh_l0"), "x": np.zeros(2)}
    found, refused, others = find_layers(arrays, None)
    assert [each.name for each in found] == ["good"]
    assert [(each.name, each.kind) for each in refused] == [("bad", "PyTorch LSTM")]
    assert others == (Other("x", "float64 (2,)"),)


def test_cells_are_told_by_their_own_names() -> None:
    assert reason(without(cell("a"), "a.bias_hh")) == "bias_hh missing for an LSTM of 1 layer, bias"
    assert "weight_hh must" in reason(cell("a") | {"a.weight_hh": np.ones((19, 5), np.float32)})
    found, refused, _ = find_layers({**lstm("a"), **cell("a")}, None)
    assert len(found) == len(refused) == 1


def test_stray_layer_numbers_cost_nothing() -> None:
    start = time.perf_counter()
    assert "layer 1" in reason(lstm() | {"weight_ih_l999999": np.ones((20, 3), np.float32)})
    stray = {"weight_ih_l999999999": np.ones((20, 3), np.float32)}
    found, _, others = find_layers(lstm() | stray, None)
    assert len(found) == 1
    assert others[0].name == "weight_ih_l999999999"
    thin = np.ones((4, 1), np.float32)
    many = {f"weight_{k}_l{n}": thin for n in range(20_000) for k in ("ih", "hh")}
    assert "20000 layers" in reason(many)
    missing = {"weight_ih_l0": thin, "weight_hh_l0": thin, "bias_ih_l0": thin[:, 0]}
    missing |= {f"bias_ih_l{n}": thin[:, 0] for n in range(1, 900)}
    assert len(reason(missing)) < 1000
    assert time.perf_counter() - start < 5


def test_thousands_of_others_are_counted() -> None:
    arrays = {f"a{n}": np.zeros(1, np.float32) for n in range(MOST_OTHERS + 7)}
    _, _, others = find_layers({**lstm(), **arrays}, None)
    assert len(others) == MOST_OTHERS + 1
    assert others[-1] == Other("...", "7 more")


def test_thousands_of_layers_and_odd_names_take_no_long() -> None:
    start = time.perf_counter()
    arrays: Arrays = {}
    thin = {"weight_ih": np.ones((4, 1), np.float32), "weight_hh": np.ones((4, 1), np.float32)}
    for n in range(3000):
        arrays |= {f"{n}.{'1.' * 50}{name}": array for name, array in thin.items()}
    arrays |= {f"{'1.' * 100_000}{name}": array for name, array in thin.items()}
    found, _, _ = find_layers(arrays, None)
    assert sum(len(each.parts) or 1 for each in found) == 3001
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("name", ["", ".", "a..weight_ih_l0", ".weight_ih_l0", "\n.weight_ih_l0"])
def test_odd_names_are_no_error(name: str) -> None:
    find_layers({name: np.ones((20, 3), np.float32)}, None)
    find_layers({name: np.array("text")}, None)
    find_layers({name: np.array(3)}, None)
