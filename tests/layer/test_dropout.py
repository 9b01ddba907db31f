"""What training drops: how often, for how long, and that nothing else does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM
from fastlstm.variants import Masks
from support.arrays import assert_same_bits, finite_differences, relative_difference
from support.layers import layer_class, results
from support.masks import RATES, drawn_for
from support.option_rows import Case
from support.paths import GOLDEN

pytestmark = pytest.mark.default_isa

KERAS = GOLDEN / "variants" / "keras_recurrent_dropout.npz"


def assert_share(of: np.ndarray, rate: float) -> None:
    """Check that a condition holds as often as it should, to five standard deviations."""
    assert abs(of.mean() - rate) < 5 * (rate * (1 - rate) / of.size) ** 0.5


# The masks


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("directions", [1, 2])
def test_rates(directions: int, rate: float, dtype: type) -> None:
    layer = layer_class(directions)(3, 64, 3, **dict.fromkeys(RATES, rate), dtype=dtype)
    drawn, LD, P = drawn_for(layer, 20, 30), 3 * directions, 64
    masks = drawn.masks
    assert masks.recurrent.shape == (LD, 30, P)
    assert masks.between.shape == (2, 20, 30, directions * P)
    assert masks.zoneout_h.shape == masks.zoneout_c.shape == (LD, 20, 30, P)
    U = {name: a for name, a in layer.named_views(drawn.weights).items() if "weight_hh" in name}
    for mask in (masks.recurrent, masks.between, *U.values()):
        assert mask.dtype == dtype
        assert set(np.unique(mask)) == {dtype(0), dtype(1 / (1 - rate))}
        assert_share(mask == 0, rate)
    for mask in (masks.zoneout_h, masks.zoneout_c):
        assert set(np.unique(mask)) == {0, 1}
        assert_share(mask == 1, rate)
    for name, array in layer.named_views(drawn.weights).items():
        assert name in U or (array == 1).all()


def test_masks_are_independent() -> None:
    # Where two numbers are dropped independently of each other, both are at the rate squared.
    layer = BiLSTM(3, 64, 3, **dict.fromkeys(RATES, 0.5))
    masks = drawn_for(layer, 20, 30).masks
    for mask in masks:
        for axis in range(mask.ndim):
            n = mask.shape[axis] // 2 * 2
            even, odd = (mask.take(range(k, n, 2), axis) == 0 for k in (0, 1))
            assert_share(even & odd, 0.25)
    assert_share((masks.zoneout_h == 0) & (masks.zoneout_c == 0), 0.25)
    assert_share((masks.recurrent[:, np.newaxis] == 0) & (masks.zoneout_h == 0), 0.25)


def test_masks_do_not_depend_on_the_precision() -> None:
    single, double = (
        drawn_for(LSTM(3, 17, 2, **RATES, dtype=dtype), 5, 4) for dtype in ("float32", "float64")
    )
    for a, b in zip((*single.masks, single.weights), (*double.masks, double.weights), strict=True):
        assert np.array_equal(a == 0, b == 0)


def test_what_is_not_asked_for_is_not_drawn() -> None:
    for name in RATES:
        masks, weights = drawn_for(LSTM(3, 5, 2, **{name: 0.5}), 4, 2)
        got = {**masks._asdict(), "weights": weights}
        renamed = {"dropout": "between", "recurrent_dropout": "recurrent"}
        expected = renamed.get(name, name).replace("weight_dropout", "weights")
        assert [mask for mask, array in got.items() if array is not None] == [expected]
    assert drawn_for(LSTM(3, 5, 1, dropout=0.5), 4, 2).masks.between is None


@pytest.mark.parametrize("name", RATES)
def test_a_generator_goes_on(name: str) -> None:
    layer, generator = LSTM(3, 5, 2, **{name: 0.5}), np.random.default_rng(0)
    x, fresh = np.ones((4, 3, 3), np.float32), np.random.default_rng(0).bit_generator.state
    layer.record(x[:, :0], rng=generator)
    layer.record(x, rng=generator)
    assert generator.bit_generator.state != fresh


# What they do. Rates with 1 / (1 - rate) a power of two, so that scaling rounds nothing.


@pytest.mark.parametrize("options", [{}, {"peepholes": True, "proj_size": 9}], ids=str)
def test_recurrent_dropout_drops_columns(options: dict[str, Any], isa: str, dtype: type) -> None:
    # For one sequence, a mask that is the same at every step might as well be one of U.
    layer = BiLSTM(3, 17, recurrent_dropout=0.5, **options, dtype=dtype, isa=isa, seed=0)
    x = np.random.default_rng(0).normal(size=(30, 1, 3))
    *got, tape = layer.record(x, rng=3)
    recurrent = drawn_for(layer, 30, 1).masks.recurrent
    arrays = dict(layer.state_dict())
    for d, end in enumerate(("l0", "l0_reverse")):
        arrays[f"weight_hh_{end}"] = arrays[f"weight_hh_{end}"] * recurrent[d]
    plain = BiLSTM(3, 17, **options, dtype=dtype, isa=isa)
    plain.load_state_dict(arrays)
    for a, b in zip(results(tuple(got)), results(plain(x)), strict=True):
        assert_same_bits(a, b)
    dU = layer.named_views(tape.backward(got[0]).params)["weight_hh_l0"]
    assert (dU[:, recurrent[0, 0] == 0] == 0).all()
    assert (dU[:, recurrent[0, 0] != 0] != 0).any()


def test_dropout_is_between_layers(isa: str, dtype: type) -> None:
    layer = BiLSTM(3, 9, 2, dropout=0.5, dtype=dtype, isa=isa, seed=0)
    x = np.random.default_rng(0).normal(size=(7, 5, 3))
    y, (h_n, _), _ = layer.record(x, rng=3)
    arrays, parts = layer.state_dict(), (BiLSTM(3, 9, dtype=dtype), BiLSTM(18, 9, dtype=dtype))
    for k, part in enumerate(parts):
        own = {n.replace(f"_l{k}", "_l0"): a for n, a in arrays.items() if f"_l{k}" in n}
        part.load_state_dict(own)
    below, (h_below, _) = parts[0](x)
    above, (h_above, _) = parts[1](below * drawn_for(layer, 7, 5).masks.between[0])
    assert_same_bits(y, above)
    assert_same_bits(h_n, np.concatenate([h_below, h_above]))


@pytest.mark.parametrize("rate", [0.3, 0.5])
@pytest.mark.parametrize("directions", [1, 2])
def test_weight_dropout_is_a_layer_of_other_weights(
    directions: int, rate: float, isa: str, dtype: type
) -> None:
    make = layer_class(directions)
    layer = make(3, 17, 2, weight_dropout=rate, dtype=dtype, isa=isa, seed=0)
    plain = make(3, 17, 2, dtype=dtype, isa=isa)
    before, mask = layer.parameters.copy(), drawn_for(layer, 6, 4).weights
    plain.load_parameters(layer.parameters * mask)
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(6, 4, 3)), rng.normal(size=(6, 4, 17 * directions))
    *got, tape = layer.record(x, rng=3)
    *expected, plain_tape = plain.record(x)
    for a, b in zip(results(tuple(got)), results(tuple(expected)), strict=True):
        assert_same_bits(a, b)
    assert_same_bits(layer.parameters, before)

    grads, plain_grads = tape.backward(dy, keep=True), plain_tape.backward(dy)
    for name in ("x", "h_0", "c_0"):
        assert_same_bits(getattr(grads, name), getattr(plain_grads, name))
    assert_same_bits(grads.params, plain_grads.params * mask)
    assert (grads.params[mask == 0] == 0).all()
    assert (layer.named_views(mask)["weight_hh_l1"] == 0).any()
    # Gradients that are added up are masked before.
    total = grads._replace(params=np.ones_like(mask), x=None, h_0=None, c_0=None)
    tape.backward(dy, wrt=["params"], into=total)
    assert_same_bits(total.params, 1 + grads.params)


def test_zoneout_keeps_numbers(isa: str, dtype: type) -> None:
    layer = LSTM(3, 17, zoneout_h=0.3, zoneout_c=0.5, dtype=dtype, isa=isa, seed=0)
    rng = np.random.default_rng(0)
    x, h, c = rng.normal(size=(8, 3)), rng.normal(size=(1, 17)), rng.normal(size=(1, 17))
    for seed, x_t in enumerate(x):
        _, (h_n, c_n), _ = layer.record(x_t[np.newaxis], (h, c), rng=seed)
        masks = drawn_for(layer, 1, 1, seed).masks
        for got, before, mask in ((h_n, h, masks.zoneout_h), (c_n, c, masks.zoneout_c)):
            kept = mask[:, 0, 0] == 1
            assert np.array_equal(got[kept], before.astype(dtype)[kept])
            assert (got[~kept] != before[~kept]).all()
        h, c = h_n, c_n


# Plain calls


@pytest.mark.parametrize("directions", [1, 2])
def test_a_plain_call_drops_nothing(directions: int, isa: str, dtype: type) -> None:
    rates = {name: rate for name, rate in RATES.items() if "dropout" in name}
    make = layer_class(directions)
    x = np.random.default_rng(0).normal(size=(6, 4, 3))
    dropping = make(3, 17, 2, **rates, dtype=dtype, isa=isa, seed=0)
    plain = make(3, 17, 2, dtype=dtype, isa=isa, seed=0)
    for a, b in zip(results(dropping(x)), results(plain(x)), strict=True):
        assert_same_bits(a, b)


def test_a_stream_drops_nothing(isa: str, dtype: type) -> None:
    layer = LSTM(3, 17, 2, **RATES, dtype=dtype, isa=isa, seed=0)
    x = np.random.default_rng(0).normal(size=(6, 3))
    assert_same_bits(layer.stream().push(x), layer(x)[0])


def test_a_plain_call_gives_the_expectation_of_zoneout(isa: str) -> None:
    # Of one step and one layer it is the mean over all masks, exactly.
    layer = LSTM(3, 5, zoneout_h=0.3, zoneout_c=0.2, dtype=np.float64, isa=isa, seed=0)
    rng, B = np.random.default_rng(0), 4000
    x = np.broadcast_to(rng.normal(size=3), (1, B, 3))
    state = tuple(np.broadcast_to(rng.normal(size=5), (1, B, 5)) for _ in range(2))
    _, called = layer(x, state)
    _, recorded, _ = layer.record(x, state, rng=0)
    for one, many in zip(called, recorded, strict=True):
        spread = many.std(axis=1) / B**0.5
        assert (spread > 0).all()
        assert (np.abs(many.mean(axis=1) - one[:, 0]) < 5 * spread).all()


# Gradients, the masks being the same in every call because the seed is

GRADIENTS: list[dict[str, Any]] = [
    {**RATES, "kind": "concat", "units": (3, 0), "layout": "lengths", "num_layers": 1},
    {**RATES, "kind": "product", "units": (3, 2), "peepholes": True, "layout": "offsets resets"},
    {**RATES, "kind": "LSTM", "units": (4, 0), "coupled_gates": True, "layout": "batch"},
]


@pytest.mark.slow(isa="scalar")
@pytest.mark.parametrize("row", GRADIENTS, ids=range(len(GRADIENTS)))
def test_gradients_agree_with_differences(row: dict[str, Any], isa: str) -> None:
    case = Case({"num_layers": 2, "T": 3, "B": 2} | row, np.float64, isa)
    case.x = np.nan_to_num(case.x)
    case.layer.load_parameters(2 * case.layer.parameters)
    vector = case.layer.parameters.copy()
    gradients = case.train(seed=8)
    given = [*case.dy, *case.dstate]

    def loss() -> float:
        case.layer.load_parameters(vector)
        named, _ = case.record(seed=8)
        return float(sum((d * a).sum() for d, a in zip(given, named.values(), strict=True)))

    arrays = {"dx": case.x, "dh_0": case.state[0], "dc_0": case.state[1]}
    arrays |= {f"d{name}": view for name, view in case.layer.named_views(vector).items()}
    for name, array in arrays.items():
        assert relative_difference(gradients[name], finite_differences(loss, array)) < 1e-8, name


# Against Keras


def test_keras(isa: str) -> None:
    with np.load(KERAS) as file:
        stored = dict(file)
    layer = BiLSTM(5, 4, recurrent_dropout=0.4, dtype=np.float64, isa=isa)
    prefix = "parameter."
    layer.load_state_dict(
        {n.removeprefix(prefix): a for n, a in stored.items() if n.startswith(prefix)}
    )
    # Its masks can't be drawn again, so they go to the kernels directly.
    y, h_n, c_n = (np.empty_like(stored[name]) for name in ("y", "h_n", "c_n"))
    masks = drawn_for(layer, 7, 3).masks._replace(recurrent=stored["recurrent"])
    model, inputs = layer._weights.model, [stored[name] for name in ("x", "h_0", "c_0")]
    records = np.empty(model.tape_size(7, 3, None))
    model.forward(*inputs, y, h_n, c_n, False, records, None, masks)
    for name, got in (("y", y), ("h_n", h_n), ("c_n", c_n)):
        np.testing.assert_allclose(got, stored[name], atol=1e-14)


def test_the_mask_of_weights_moves_no_other() -> None:
    """Sequences of the next call draw what they would have drawn in one call."""
    layer = LSTM(3, 8, 2, weight_dropout=0.5, recurrent_dropout=0.5, zoneout_c=0.5, seed=0)
    x = np.ones((5, 4, 3), np.float32)

    def masks(x: np.ndarray, rng: np.random.Generator) -> Masks:
        drawn = layer.record(x, rng=rng)[2]._recording.drawn.masks
        assert drawn is not None
        return drawn

    whole = masks(x, np.random.default_rng(1))
    rng = np.random.default_rng(1)
    parts = [masks(x[:, :1], rng), masks(x[:, 1:], rng)]
    for name, axis in (("recurrent", 1), ("zoneout_c", 2)):
        joined = np.concatenate([getattr(part, name) for part in parts], axis)
        np.testing.assert_array_equal(joined, getattr(whole, name))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [np.inf, np.nan, 3e38, 1e-40])
def test_a_weight_that_is_dropped_counts_as_zero(number: float) -> None:
    layer = LSTM(1, 1, weight_dropout=0.5, seed=0)
    arrays = {name: array.copy() for name, array in layer.state_dict().items()}
    arrays["weight_hh_l0"][:] = number
    layer.load_state_dict(arrays)
    x = np.ones((3, 1, 1), np.float32)
    seen = set()
    with np.errstate(all="raise"):
        for seed in range(200):
            y, _, tape = layer.record(x, rng=seed)
            dropped = tape._recording.parameters[4:8] == 0
            seen.add(bool(dropped.all()))
            if dropped.all():
                assert np.isfinite(y).all()
                tape.backward(np.ones_like(y))
    assert seen == {True, False}


def test_dropout_between_layers_needs_two() -> None:
    layer = LSTM(3, 5, dropout=0.5)
    assert not layer.drops
    layer.record(np.zeros((2, 1, 3), np.float32))
    assert LSTM(3, 5, 2, dropout=0.5).drops


def test_a_failed_call_leaves_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LSTM(3, 5, 2, dropout=0.5, recurrent_dropout=0.5, seed=0)
    rng = np.random.default_rng(1)
    before = rng.bit_generator.state

    def full(*sizes: Any) -> int:
        assert rng.bit_generator.state != before  # numbers were drawn
        raise MemoryError

    monkeypatch.setattr("fastlstm._call._tape_size", full)
    with pytest.raises(MemoryError):
        layer.record(np.ones((4, 2, 3)), rng=rng)
    assert rng.bit_generator.state == before


def test_a_failed_call_leaves_what_others_drew() -> None:
    layer = LSTM(3, 5, 2, dropout=0.5, seed=0)
    rng, expected = np.random.default_rng(1), np.random.default_rng(1)
    expected.random()

    class Draws:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return np.full((4, 2, 7), rng.random())  # of a wrong shape

    with pytest.raises(ValueError, match=r"^x: got 3 dimensions, shape"):
        layer.record(Draws(), rng=rng)
    assert rng.bit_generator.state == expected.bit_generator.state


@pytest.mark.parametrize("rng", [True, [], np.zeros(0, int), np.False_, [True], [[]]])
def test_seeds_that_say_nothing(rng: Any) -> None:
    with pytest.raises(TypeError, match=r"^rng: got"):
        LSTM(3, 5, zoneout_h=0.5).record(np.ones((4, 2, 3)), rng=rng)
