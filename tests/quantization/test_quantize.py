"""`fastlstm.quantize`: bit for bit the reference on every option, and what the layer is then."""

from __future__ import annotations

import copy
import functools
import pickle
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM, _core, reference
from fastlstm.quantization.digits import FLOAT_INPUTS
from fastlstm.reference.stack import weights_of
from support.arrays import assert_same_bits, one_nan
from support.layers import layer_class, random_state, results
from support.quantized_layers import by_reference, quantized_on
from support.variant_cases import CHOICES, covering, name_of

pytestmark = [pytest.mark.sanitized, pytest.mark.wheel]

# Whatever a layer can be in inference. Sizes are around the lanes and the bound of float inputs.
OPTIONS = {
    **{
        name: [choice for choice in choices if choice != "mask"]
        for name, choices in CHOICES.items()
        if name not in ("recurrent", "between", "layers")
    },
    "proj_size": (0, 1, 3),
    "sizes": ((5, 3, 2, 5), (1, 1, 21, 4), (3, 2, FLOAT_INPUTS, 11), (4, 3, 17, 19), (2, 5, 37, 8)),
    "layers": ((1, 1, False), (1, 1, True), (2, 2, False), (3, 1, False), (1, 2, False)),
}
CASES = covering(OPTIONS)


class Problem:
    """A float layer of a case, and what it is called with."""

    def __init__(self, number: int) -> None:
        case = dict(CASES[number])
        T, B, I, H = case.pop("sizes")
        L, D, reverse = case.pop("layers")
        has_lengths = case.pop("lengths")
        rng = np.random.default_rng(number)
        if D == 1:
            case["reverse"] = reverse
        self.layer = layer_class(D)(I, H, L, **case, seed=rng)
        vector = rng.uniform(-0.9, 0.9, self.layer.parameters.size)
        self.layer.load_parameters(vector)
        P = self.layer.output_size
        self.x = rng.normal(size=(T, B, I)).astype(np.float32)
        h_0 = rng.uniform(-0.9, 0.9, (L * D, B, P))
        self.state = h_0.astype(np.float32), random_state(rng, (L * D, B, H), np.float32)[1]
        self.ragged = {"lengths": rng.integers(0, T + 1, B)} if has_lengths else {}


problem = functools.cache(Problem)


@functools.cache
def expected(number: int, bits: int) -> list[np.ndarray]:
    given = problem(number)
    return by_reference(given.layer, bits, given.x, given.state, **given.ragged)


def assert_all_same_bits(got: Any, wanted: Any) -> None:
    for a, b in zip(got, wanted, strict=True):
        assert_same_bits(np.ascontiguousarray(a), np.ascontiguousarray(b))


@pytest.mark.parametrize("number", range(len(CASES)), ids=[name_of(case) for case in CASES])
def test_every_option_is_the_reference_bit_for_bit(number: int, bits: int, isa: str) -> None:
    given = problem(number)
    layer = quantized_on(isa, given.layer, bits)
    assert layer.isa == isa
    assert_all_same_bits(
        results(layer(given.x, given.state, **given.ragged)), expected(number, bits)
    )


@pytest.mark.emulated
@pytest.mark.parametrize("H", [1, 7, 16, 33, 64, 100])
def test_sizes_around_the_lanes(H: int, bits: int, isa: str) -> None:
    rng = np.random.default_rng(H)
    for I, B, T in [(H, 1, 4), (17, 5, 3), (64, 17, 2), (3, 2, 5)]:
        layer = LSTM(I, H, seed=rng)
        x = rng.normal(size=(T, B, I)).astype(np.float32)
        got = quantized_on(isa, layer, bits)(x)
        assert_all_same_bits(results(got), by_reference(layer, bits, x))


def test_factors_of_data_are_the_reference_bit_for_bit(bits: int, isa: str) -> None:
    rng = np.random.default_rng(0)
    sizes = (10 ** rng.uniform(-2, 2, 40)).astype(np.float32)
    layer = BiLSTM(40, 9, 2, seed=0)
    arrays = dict(layer.state_dict())
    for name in ("weight_ih_l0", "weight_ih_l0_reverse"):
        arrays[name] = arrays[name] / sizes
    layer.load_state_dict(arrays)
    x = (rng.normal(size=(20, 3, 40)) * sizes).astype(np.float32)
    made = quantized_on(isa, layer, bits, x)
    multipliers = [direction.x_multipliers for direction in made._quantized.directions]
    assert multipliers[2:] == [None, None]
    assert_same_bits(multipliers[0], multipliers[1])
    assert np.array_equal(np.frexp(multipliers[0])[0], np.full(40, 0.5)), "powers of two"
    factors = [1 / multipliers[0], None]
    assert_all_same_bits(results(made(x[:4])), by_reference(layer, bits, x[:4], factors=factors))


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mean", "product", None])
@pytest.mark.parametrize("return_sequences", [True, False])
def test_options_of_results(merge_mode: Any, return_sequences: bool, bits: int) -> None:
    options = {"merge_mode": merge_mode, "return_sequences": return_sequences}
    layer = BiLSTM(20, 6, 2, batch_first=True, **options, seed=0)
    x = np.random.default_rng(0).normal(size=(3, 5, 20)).astype(np.float32)
    made = fastlstm.quantize(layer, bits)
    assert made.options == layer.options
    y, states = made(x)
    both, h_n, c_n = by_reference(layer, bits, np.ascontiguousarray(x.swapaxes(0, 1)))
    assert_all_same_bits(states, (h_n, c_n))
    ends = both.swapaxes(0, 1)
    if not return_sequences:
        ends = np.concatenate([h_n[2], h_n[3]], axis=-1)
    merged = {
        "concat": ends,
        "sum": ends[..., :6] + ends[..., 6:],
        "mean": (ends[..., :6] + ends[..., 6:]) / 2,
        "product": ends[..., :6] * ends[..., 6:],
        None: (ends[..., :6], ends[..., 6:]),
    }[merge_mode]
    if merge_mode is None:
        assert_all_same_bits(y, merged)
    else:
        assert_same_bits(y, np.ascontiguousarray(merged))


# What the layer is


def test_bits_tell_layers_apart(bits: int) -> None:
    layer = LSTM(20, 6, 2, peepholes=True, dropout=0.3, seed=0)
    assert layer.bits is None
    made = fastlstm.quantize(layer, bits)
    assert type(made) is LSTM
    assert made.bits == bits
    assert made.options == layer.options
    assert made.drops == layer.drops
    assert repr(made) == repr(layer).removesuffix(")") + f", bits={bits})"
    assert layer.bits is None, "it stays as it is"
    with pytest.raises(AttributeError, match=r"^bits: fixed when the layer was made"):
        made.bits = 16


def test_what_training_drops_is_of_no_effect(bits: int) -> None:
    rates = {"dropout": 0.5, "recurrent_dropout": 0.4, "weight_dropout": 0.3}
    layer, dropping = LSTM(20, 6, 2, seed=0), LSTM(20, 6, 2, **rates, seed=0)
    made = fastlstm.quantize(dropping, bits)
    assert made.rates == dropping.rates
    x = np.random.default_rng(0).normal(size=(3, 4, 20)).astype(np.float32)
    assert_all_same_bits(results(made(x)), results(fastlstm.quantize(layer, bits)(x)))


def test_8_bits_by_default() -> None:
    assert fastlstm.quantize(LSTM(3, 5)).bits == 8
    assert fastlstm.quantize(LSTM(3, 5), np.int64(16)).bits == 16


def test_parameters_are_what_the_digits_stand_for(bits: int) -> None:
    rng = np.random.default_rng(0)
    layer = BiLSTM(20, 12, 2, proj_size=5, peepholes=True, layer_norm=True, seed=rng)
    sizes = np.ldexp(np.float32(1), rng.integers(-6, 7, 20))
    arrays = {name: np.array(array) for name, array in layer.state_dict().items()}
    for name in ("weight_ih_l0", "weight_ih_l0_reverse"):
        arrays[name] /= sizes
    layer.load_state_dict(arrays)
    made = fastlstm.quantize(layer, bits, rng.normal(size=(30, 2, 20)) * sizes)
    multipliers = made._quantized.directions[0].x_multipliers
    kept = 0
    for name, array in made.state_dict().items():
        is_matrix = name.startswith(("weight_ih", "weight_hh", "weight_hr"))
        if not is_matrix or (array.shape[1] <= FLOAT_INPUTS and name.startswith("weight_ih")):
            assert_same_bits(array, layer.state_dict()[name])
            kept += 1
            continue
        # Rounded to the nearest of equal steps, of each row before its factors are taken out.
        factors = 1 / multipliers if name.startswith("weight_ih_l0") else 1
        got, wanted = array * factors, layer.state_dict()[name] * factors
        step = np.abs(wanted).max(axis=1, keepdims=True) / {8: 127, 16: 32639, 24: 8355711}[bits]
        assert (np.abs(got - wanted) <= 0.51 * step + 2.0**-23 * np.abs(wanted)).all()
    assert kept == 4 * 9 + 2
    assert_same_bits(
        made.parameters, np.concatenate([a.ravel() for a in made.state_dict().values()])
    )
    assert not made.parameters.flags.writeable
    assert not any(array.flags.writeable for array in made.state_dict().values())
    assert not any(array.flags.writeable for array in made._quantized.arrays())
    views = made.named_views(np.zeros_like(made.parameters))
    assert list(views) == list(arrays)


def test_digits_of_digits_are_the_same(bits: int) -> None:
    """A float layer of what the digits stand for gives them again, if not with 24 bits."""
    made = fastlstm.quantize(LSTM(20, 12, seed=0), bits)
    again = LSTM(20, 12)
    again.load_parameters(made.parameters)
    for a, b in zip(
        made._quantized.arrays(), fastlstm.quantize(again, bits)._quantized.arrays(), strict=True
    ):
        if bits < 24:
            assert_same_bits(a, b)


def test_no_floats_are_kept() -> None:
    layer = LSTM(64, 64, seed=0)
    sizes = {
        bits: sum(array.nbytes for array in fastlstm.quantize(layer, bits)._quantized.arrays())
        for bits in (8, 16, 24)
    }
    floats = layer.parameters.nbytes
    for bits, size in sizes.items():
        assert bits / 32 < size / floats < bits / 32 + 0.05
    assert fastlstm.quantize(layer, 8)._weights.model.nbytes < 0.4 * layer._weights.model.nbytes


# Copies


class Tagged(LSTM):
    """With an attribute, and arguments of its own."""

    def __init__(self, tag: str) -> None:
        super().__init__(20, 6, 2, batch_first=True, seed=0)
        self.tag = tag


class Slotted(BiLSTM):
    """With an attribute, and no other."""

    __slots__ = ("tag",)


def slotted() -> Slotted:
    layer = Slotted(20, 6, seed=0)
    layer.tag = "mine"
    return layer


@pytest.mark.parametrize("make", [lambda: Tagged("mine"), slotted])
@pytest.mark.parametrize(
    "copied",
    [
        lambda layer: layer,
        copy.copy,
        copy.deepcopy,
        lambda layer: pickle.loads(pickle.dumps(layer)),
    ],
    ids=["itself", "copy", "deepcopy", "pickle"],
)
def test_copies(copied: Any, make: Any, bits: int, isa: str) -> None:
    layer = make()
    made = quantized_on(isa, layer, bits)
    made.tag = "other"
    other = copied(made)
    assert type(other) is type(layer)
    assert (other.tag, layer.tag) == ("other", "mine")
    assert (other.bits, other.isa, other.options) == (bits, isa, layer.options)
    assert fastlstm.quantize(layer, bits).tag == "mine"
    x = np.random.default_rng(0).normal(size=(3, 4, 20)).astype(np.float32)
    assert_all_same_bits(results(other(x)), results(made(x)))
    assert_same_bits(other.parameters, made.parameters)


def test_a_pickle_of_another_machine_runs_on_what_there_is(bits: int) -> None:
    layer = fastlstm.quantize(LSTM(20, 6, seed=0), bits)
    state = layer.__getstate__() | {"_isa_asked": "riscv_of_tomorrow"}
    other = LSTM.__new__(LSTM)
    other.__setstate__(state)
    assert other.isa == layer.isa
    x = np.ones((3, 4, 20), np.float32)
    assert_same_bits(other(x)[0], layer(x)[0])


def test_the_instruction_set_asked_for_stays(bits: int) -> None:
    for isa in _core.available_isas():
        made = fastlstm.quantize(LSTM(20, 6, isa=isa, seed=0), bits)
        of_it = [name for name in _core.quantized_isas() if name.split("_")[0] == isa]
        if isa not in _core.quantized_isas():
            assert made.isa == of_it[0], "the fastest of its own"
        else:
            assert made.isa == isa
        assert copy.deepcopy(made).isa == made.isa


def test_pickles_are_small() -> None:
    layer = LSTM(128, 128, seed=0)
    floats = len(pickle.dumps(layer))
    for bits in (8, 16, 24):
        assert len(pickle.dumps(fastlstm.quantize(layer, bits))) < floats * (bits / 32 + 0.05)


# Errors of results


def test_errors_are_those_that_the_documentation_states() -> None:
    layer = LSTM(64, 128, seed=0)
    x = np.random.default_rng(0).normal(size=(60, 2, 64)).astype(np.float32)
    exact, _ = reference.forward(x, None, layer.state_dict())
    for bits, bound in ((8, 2e-2), (16, 1e-4), (24, 1e-6)):
        y, _ = fastlstm.quantize(layer, bits)(x)
        assert y.dtype == np.float32
        assert np.abs(y - exact).max() < bound


# Weights out of the ordinary


def test_digits_are_those_of_the_reference(bits: int) -> None:
    rng = np.random.default_rng(0)
    layer = LSTM(20, 12, proj_size=5, seed=rng)
    arrays = {name: np.array(array) for name, array in layer.state_dict().items()}
    for name in ("weight_ih_l0", "weight_hh_l0", "weight_hr_l0"):
        rows = arrays[name]
        rows[0] = 0
        rows[1] *= np.float32(1e-37)  # denormals beside numbers that are not
        rows[2] = np.float32(1e-44)
        rows[3] *= np.float32(1e37)
        rows[4, 1] = {"weight_ih_l0": np.nan, "weight_hh_l0": np.inf, "weight_hr_l0": 1}[name]
        if len(rows) > 5:
            rows[5] = np.float32(3.4e38) * np.sign(rows[5])
            rows[6, 2] *= np.float32(1e6)
    layer.load_state_dict(arrays)
    (got,) = fastlstm.quantize(layer, bits)._quantized.directions
    expected = reference.quantize_layer(weights_of(arrays, 0, 0), bits)
    for matrix, wanted in ((got.w, expected.W), (got.u, expected.U), (got.w_hr, expected.W_hr)):
        assert_same_bits(matrix.digits, wanted.digits)
        assert_same_bits(one_nan(matrix.units), one_nan(wanted.unit))


def test_weights_that_are_not_finite_make_nans(bits: int, isa: str) -> None:
    layer = LSTM(20, 7, seed=0)
    arrays = {name: np.array(array) for name, array in layer.state_dict().items()}
    arrays["weight_ih_l0"][3, 5] = np.nan
    layer.load_state_dict(arrays)
    made = quantized_on(isa, layer, bits)
    y, _ = made(np.ones((2, 1, 20), np.float32))
    assert np.flatnonzero(np.isnan(y[0, 0])).tolist() == [3]
    assert np.isnan(y[1]).all()
    assert np.isnan(made.state_dict()["weight_ih_l0"]).sum() == 20
    assert fastlstm.quantize(layer, bits, np.ones((2, 1, 20)))._quantized is not None
