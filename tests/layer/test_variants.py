"""Every option of the layers beside every other: against PyTorch's operations; names, copies."""

from __future__ import annotations

import copy
import pickle
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from fastlstm import BiLSTM, _core, reference
from fastlstm._masks import Drawn
from fastlstm._parameters import split
from fastlstm.variants import NO_MASKS, Masks
from support.arrays import assert_same_bits, relative_difference
from support.layers import layer_class, random_state, results
from support.option_rows import (
    CELL_OPTIONS,
    NO_DROPPING,
    OPTIONS,
    ROWS,
    TOLERANCE,
    Case,
    Piece,
    make_layer,
)
from support.optional import require

pytestmark = pytest.mark.default_isa

# Each option by itself: beside others, these may be why it is looked at.
USUAL: dict[str, Any] = NO_DROPPING | {
    "units": (17, 0), "num_layers": 1, "bias": True, "peepholes": False, "coupled_gates": False,
    "layer_norm": False, "gate_activation": "sigmoid", "cell_activation": "tanh",
    "output_activation": "tanh", "clip": None, "cell_clip": None, "zoneout_h": 0.0,
    "zoneout_c": 0.0, "kind": "LSTM", "batch_first": False, "return_sequences": True,
    "layout": "batch", "T": 5, "B": 5,
}  # fmt: skip
ALONE = {
    f"{name}={value}": USUAL | {name: value}
    for name in [*CELL_OPTIONS, *NO_DROPPING]
    for value in OPTIONS[name]
    if value != USUAL[name]
}


def of_oracle(case: Case, drawn: Drawn | None, *, train: bool) -> dict[str, np.ndarray]:
    """What a call, or with `train` a recorded one, should give; every piece is run by itself."""
    torch, oracle = require("torch"), require("support.torch_oracle")
    layer, D, T, B = case.layer, case.layer.num_directions, case.T, case.B
    rows = np.arange(layer.num_layers * D)[:, np.newaxis]
    forward = (rows % D == 0) & (not layer.reverse)
    pieces = case.pieces()
    owner = np.array([p.b for p in pieces], int)
    lengths = [p.end - p.begin for p in pieces]
    steps = np.arange(max(lengths, default=0))[:, np.newaxis]
    time = np.minimum(steps + np.array([p.begin for p in pieces], int), max(T - 1, 0))
    flags = {name: np.array([getattr(p, name) for p in pieces], bool) for name in Piece._fields[3:]}

    weights = 1.0 if drawn is None or drawn.weights is None else drawn.weights
    arrays = {"x": np.nan_to_num(case.x), "h_0": case.state[0], "c_0": case.state[1]}
    arrays |= split(layer.parameters * weights, layer._spec)
    leaves = {
        name: torch.tensor(a, dtype=torch.float64, requires_grad=True) for name, a in arrays.items()
    }
    begins = torch.tensor(np.where(forward, flags["keeps_h_0"], flags["is_last"]))[..., None]
    state = [leaves[name][:, owner] * begins for name in ("h_0", "c_0")]
    masks = NO_MASKS
    if drawn is not None:
        recurrent, *others = drawn.masks
        masks = Masks(
            None if recurrent is None else recurrent[:, owner],
            *(None if m is None else m[:, time, owner] for m in others),
        )
    own = {name: leaves[name] for name in layer.state_dict()}
    sizes = layer.num_layers, D, layer.reverse
    y, *lasts = oracle.run(leaves["x"][time, owner], state, own, layer.cell, masks, *sizes, lengths)

    ends = np.where(forward, *(np.flatnonzero(flags[f"is_{end}"]) for end in ("last", "first")))
    h_n, c_n = (a[rows, ends] for a in lasts)
    if layer.return_sequences:
        both = torch.zeros(T, B, y.shape[-1]).double() + 0 * leaves["x"].sum()
        for s, p in enumerate(pieces):
            both[p.begin : p.end, p.b] = y[: lengths[s], s]
    else:
        both = torch.cat(list(h_n[-D:]), -1)
    first, second = both.chunk(2, -1) if layer.merge_mode != "concat" else (both, both)
    merged = {
        "concat": lambda: [both],
        "sum": lambda: [first + second],
        "mean": lambda: [(first + second) / 2],
        "product": lambda: [first * second],
        None: lambda: [first, second],
    }[layer.merge_mode]()

    outputs = [*merged, h_n, c_n]
    named = dict(zip([*(f"y{k}" for k in range(len(merged))), "h_n", "c_n"], outputs, strict=True))
    if train:
        given = [torch.tensor(a, dtype=torch.float64) for a in (*case.dy, *case.dstate)]
        found = torch.autograd.grad(
            outputs, list(leaves.values()), given, allow_unused=True, materialize_grads=True
        )
        named |= {f"d{name}": a for name, a in zip(leaves, found, strict=True)}
    plain = {name: a.detach().numpy() for name, a in named.items()}
    if train and drawn is not None and drawn.weights is not None:
        for name, mask in split(drawn.weights, layer._spec).items():
            plain[f"d{name}"] = plain[f"d{name}"] * mask
    return plain


def assert_close(
    got: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float
) -> None:
    assert list(got) == list(expected)
    for name, array in expected.items():
        # Entries that all nearly cancel out are as good as their summands.
        scale = max(np.abs(array).max(initial=0), 0.01)
        assert np.abs(got[name] - array).max(initial=0) / scale <= tolerance, name


# Against PyTorch's operations


def test_rows_hold_every_pair() -> None:
    options = OPTIONS | {"kind": [*OPTIONS["kind"], "reverse"]}
    for a, b in combinations(options, 2):
        found = {(repr(row[a]), repr(row[b])) for row in ROWS}
        assert len(found) == len(options[a]) * len(options[b])


@pytest.mark.parametrize("row", [*ROWS, *ALONE.values()], ids=[*map(str, range(len(ROWS))), *ALONE])
def test_agrees_with_pytorchs_operations(row: dict[str, Any], dtype: type) -> None:
    expected: list[dict[str, np.ndarray]] = []
    for isa in _core.available_isas():
        case = Case(row, dtype, isa)
        if not expected:  # the oracle, being slow, computes it once
            drawn = case.drawn() if case.drops else None
            expected = [of_oracle(case, None, train=False), of_oracle(case, drawn, train=True)]
        for got, wanted in zip((case.call(), case.train()), expected, strict=True):
            assert all(a.dtype == dtype for a in got.values())
            assert_close(got, wanted, case.tolerance)


@pytest.mark.parametrize("size", ["T", "B"])
@pytest.mark.parametrize("row", ROWS[::7], ids=range(len(ROWS[::7])))
def test_no_steps_and_no_sequences(row: dict[str, Any], size: str, isa: str, dtype: type) -> None:
    case = Case(row | {size: 0}, dtype, isa)
    drawn = case.drawn() if case.drops else None
    assert_close(case.call(), of_oracle(case, None, train=False), case.tolerance)
    assert_close(case.train(), of_oracle(case, drawn, train=True), case.tolerance)


def test_zoneout_of_everything_keeps_the_state(isa: str, dtype: type) -> None:
    layer = BiLSTM(3, 5, zoneout_h=1, zoneout_c=1, dtype=dtype, isa=isa, seed=0)
    rng = np.random.default_rng(0)
    x, state = rng.normal(size=(4, 2, 3)), random_state(rng, (2, 2, 5), dtype)
    for y, (h_n, c_n), *_ in (layer(x, state), layer.record(x, state, rng=0)):
        assert_same_bits(h_n, state[0])
        assert_same_bits(c_n, state[1])
        assert_same_bits(y, np.broadcast_to(np.concatenate(list(state[0]), -1), y.shape).copy())


def of_reference(case: Case, drawn: Drawn | None) -> dict[str, np.ndarray]:
    """What a batch without resets, its directions side by side, should give and get."""
    layer = case.layer
    options = {"num_layers": layer.num_layers, "num_directions": layer.num_directions}
    options |= {"cell": layer.cell, "lengths": case.lengths, "reverse": layer.reverse}
    mask = np.ones(layer.parameters.size)
    if drawn is not None:
        mask = mask if drawn.weights is None else drawn.weights
        options |= {"masks": drawn.masks}
    inputs = case.x, case.state, split(layer.parameters * mask, layer._spec)
    y, (h_n, c_n) = reference.forward(*inputs, **options)
    found = {"y0": y, "h_n": h_n, "c_n": c_n}
    if drawn is None:
        return found
    dx, (dh_0, dc_0), dparameters = reference.backward(*inputs, case.dy[0], case.dstate, **options)
    found |= {"dx": dx, "dh_0": dh_0, "dc_0": dc_0}
    masks = split(mask, layer._spec)
    return found | {f"d{name}": dparameters[name] * masks[name] for name in masks}


def assert_agrees_with_reference(row: dict[str, Any], dtype: type) -> None:
    """Check calls on every instruction set; the reference, being slow, computes it once."""
    expected: list[dict[str, np.ndarray]] = []
    for isa in _core.available_isas():
        case = Case(row, dtype, isa)
        expected = expected or [of_reference(case, None), of_reference(case, case.drawn())]
        for got, wanted in zip((case.call(), case.train()), expected, strict=True):
            assert_close(got, wanted, case.tolerance)


@pytest.mark.parametrize("number", range(0, len(ROWS), 5))
def test_reference(number: int, dtype: type) -> None:
    layout = ["batch", "lengths"][number % 2]
    kind = ROWS[number]["kind"]
    plain = {"kind": kind if kind in ("LSTM", "reverse") else "concat"}
    plain |= {"return_sequences": True, "layout": layout}
    assert_agrees_with_reference(ROWS[number] | plain, dtype)


@pytest.mark.slow(dtype=np.float64)
@pytest.mark.parametrize(
    "options",
    [
        {"units": (17, 0), "peepholes": True, "zoneout_h": 0.2, "dropout": 0.5, "num_layers": 2},
        {"units": (17, 9), "coupled_gates": True, "zoneout_c": 0.2, "recurrent_dropout": 0.4},
        {"units": (9, 0), "layer_norm": True, "zoneout_h": 0.1, "zoneout_c": 0.2},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["concat", "reverse"])
def test_more_steps_than_a_chunk_of_the_core(
    kind: str, options: dict[str, Any], dtype: type
) -> None:
    layout = "batch" if "dropout" in options else "lengths"
    row = {"kind": kind, "layout": layout, "T": 300, "B": 2}
    assert_agrees_with_reference(row | options, dtype)


@pytest.mark.parametrize("row", ROWS[::2], ids=range(0, len(ROWS), 2))
def test_nan_and_infinity_propagate(row: dict[str, Any], isa: str, dtype: type) -> None:
    plain = {"merge_mode": "concat", "return_sequences": True, "layout": "batch", "B": 7}
    case = Case(row | plain | {"kind": "concat"}, dtype, isa)
    layer = case.layer
    case.x[-1, 0, 1], case.x[0, 1, 0], case.x[0, 2, 2] = np.nan, np.inf, -np.inf
    case.state[0][0, 3, 0], case.state[1][-1, 4, 0] = np.nan, np.nan
    case.state[0][-1, 5, 0], case.state[1][0, 6, 0] = np.inf, -np.inf
    with np.errstate(all="ignore"):
        y, states = reference.forward(
            case.x,
            case.state,
            layer.state_dict(),
            num_layers=layer.num_layers,
            num_directions=2,
            cell=layer.cell,
        )
    rtol = 100 * TOLERANCE[dtype]
    for got, wanted in zip(case.call().values(), (y, *states), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=rtol, atol=rtol)


# Names, shapes and copies

NAMES = {
    "plain": ({}, {"weight_ih": (20, 3), "weight_hh": (20, 5), "bias_ih": (20,), "bias_hh": (20,)}),
    "proj_size": (
        {"proj_size": 2, "bias": False},
        {"weight_ih": (20, 3), "weight_hh": (20, 2), "weight_hr": (2, 5)},
    ),
    "peepholes": (
        {"peepholes": True, "bias": False},
        {
            "weight_ih": (20, 3),
            "weight_hh": (20, 5),
            "weight_ci": (5,),
            "weight_cf": (5,),
            "weight_co": (5,),
        },
    ),
    "coupled_gates": (
        {"coupled_gates": True, "bias": False},
        {"weight_ih": (15, 3), "weight_hh": (15, 5)},
    ),
    "layer_norm": (
        {"layer_norm": True, "bias": False},
        {
            "weight_ih": (20, 3),
            "weight_hh": (20, 5),
            "scale_ih": (20,),
            "scale_hh": (20,),
            "scale_c": (5,),
            "shift_c": (5,),
        },
    ),
    "all": (
        {"coupled_gates": True, "peepholes": True, "layer_norm": True, "proj_size": 2},
        {
            "weight_ih": (15, 3),
            "weight_hh": (15, 2),
            "bias_ih": (15,),
            "bias_hh": (15,),
            "weight_hr": (2, 5),
            "weight_ci": (5,),
            "weight_co": (5,),
            "scale_ih": (15,),
            "scale_hh": (15,),
            "scale_c": (5,),
            "shift_c": (5,),
        },
    ),
}


@pytest.mark.parametrize("which", NAMES)
def test_names_and_shapes(which: str) -> None:
    options, expected = NAMES[which]
    layer = BiLSTM(3, 5, 2, **options, seed=0)
    P = layer.output_size
    assert options.get("proj_size", 5) == P
    above = expected | {"weight_ih": (expected["weight_ih"][0], 2 * P)}
    names = {
        name + tail: shape
        for tails, shapes in ((("_l0", "_l0_reverse"), expected), (("_l1", "_l1_reverse"), above))
        for tail in tails
        for name, shape in shapes.items()
    }
    assert {name: a.shape for name, a in layer.state_dict().items()} == names
    assert list(layer.state_dict()) == list(names)
    flat = np.concatenate([a.ravel() for a in layer.state_dict().values()])
    assert_same_bits(layer.parameters, flat)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("directions", [1, 2])
def test_projections_are_pytorchs(directions: int, bias: bool, isa: str, dtype: type) -> None:
    torch = require("torch")
    rng = np.random.default_rng(0)
    theirs = torch.nn.LSTM(3, 17, 2, bias=bias, bidirectional=directions == 2, proj_size=5)
    theirs = theirs.to(getattr(torch, np.dtype(dtype).name))
    ours = layer_class(directions)(3, 17, 2, bias=bias, proj_size=5, dtype=dtype, isa=isa)
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = rng.normal(size=(6, 4, 3)).astype(dtype)
    h_0, _ = random_state(rng, (2 * directions, 4, 5), dtype)
    _, c_0 = random_state(rng, (2 * directions, 4, 17), dtype)
    with torch.inference_mode():
        state = (torch.from_numpy(h_0).double(), torch.from_numpy(c_0).double())
        expected = results(theirs.double()(torch.from_numpy(x).double(), state))
    for got, wanted in zip(results(ours(x, (h_0, c_0))), expected, strict=True):
        assert relative_difference(got, wanted.numpy()) <= TOLERANCE[dtype] / 10


@pytest.mark.parametrize("row", ROWS[::3], ids=range(len(ROWS[::3])))
def test_copies_keep_every_option(row: dict[str, Any], dtype: type) -> None:
    case = Case(row, dtype)
    layer, expected = case.layer, case.train()
    by_dict, by_vector = make_layer(row, 1, dtype=dtype), make_layer(row, 2, dtype=dtype)
    by_dict.load_state_dict(layer.state_dict())
    by_vector.load_parameters(layer.parameters)
    copies = [copy.deepcopy(layer), copy.copy(layer), pickle.loads(pickle.dumps(layer))]
    for made in [*copies, by_dict, by_vector]:
        assert type(made) is type(layer)
        assert repr(made) == repr(layer)
        assert made._spec == layer._spec
        assert (made.cell, made.rates) == (layer.cell, layer.rates)
        case.layer = made
        for name, array in case.train().items():
            assert_same_bits(array, expected[name])


# Every option that a layer takes by name, with a value other than the default.
CHANGED: dict[str, Any] = {
    "bias": False,
    "batch_first": True,
    "proj_size": 2,
    "peepholes": True,
    "coupled_gates": True,
    "layer_norm": True,
    "gate_activation": "hard_sigmoid",
    "cell_activation": "relu",
    "output_activation": "identity",
    "clip": 0.5,
    "cell_clip": 3.0,
    "dropout": 0.1,
    "recurrent_dropout": 0.2,
    "weight_dropout": 0.3,
    "zoneout_h": 0.4,
    "zoneout_c": 0.5,
    "merge_mode": "sum",
    "return_sequences": False,
}


@pytest.mark.parametrize("name", CHANGED)
def test_repr_shows_what_is_not_the_default(name: str) -> None:
    value = CHANGED[name]
    assert repr(BiLSTM(3, 5, **{name: value})) == f"BiLSTM(3, 5, {name}={value!r}, dtype=float32)"
    assert repr(BiLSTM(3, 5, **{name: np.array(value)[()]})).count("np.") == 0


def test_repr_makes_the_layer_again() -> None:
    layer = BiLSTM(3, 5, 2, **CHANGED, dtype="float64")
    made = eval(repr(layer).replace("=float64", "='float64'"))
    assert repr(made) == repr(layer)
    assert (made.cell, made.rates) == (layer.cell, layer.rates)
    assert repr(BiLSTM(3, 5, merge_mode=None)) == "BiLSTM(3, 5, merge_mode=None, dtype=float32)"


def test_options_are_fixed() -> None:
    layer = BiLSTM(3, 5, 2, **CHANGED)
    for name in ("proj_size", "output_size", "cell", "rates", "merge_mode", "return_sequences"):
        with pytest.raises(AttributeError, match=rf"^{name}: fixed"):
            setattr(layer, name, getattr(layer, name))
