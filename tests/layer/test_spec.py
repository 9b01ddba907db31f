"""The options of a layer: one default, one check and one name for each, and no others."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import LSTM, BiLSTM, LSTMBase, optim, training, weights
from fastlstm._spec import DEFAULTS, MAX_LAYERS, REQUIRED, USUAL, Spec, as_spec
from fastlstm.variants import ACTIVATIONS, Cell, Rates

#: Arguments of the constructors that are no options: they choose first parameters, or the kernels.
NO_OPTIONS = ["forget_bias", "seed", "isa"]

SIZES = {"input_size": 3, "hidden_size": 5}


@pytest.mark.parametrize("kind", [LSTM, BiLSTM, LSTMBase])
def test_constructors_take_every_option_with_its_default(kind: type[LSTMBase]) -> None:
    parameters = inspect.signature(kind).parameters
    assert set(parameters) == {*REQUIRED, *DEFAULTS, *NO_OPTIONS}
    for name, default in DEFAULTS.items():
        assert parameters[name].default == default
    assert all(parameters[name].default is inspect.Parameter.empty for name in REQUIRED)


def test_defaults_by_hand() -> None:
    assert DEFAULTS == {
        "num_layers": 1, "bias": True, "batch_first": False, "proj_size": 0, "peepholes": False,
        "coupled_gates": False, "gate_activation": "sigmoid", "cell_activation": "tanh",
        "output_activation": "tanh", "clip": None, "cell_clip": None, "layer_norm": False,
        "zoneout_h": 0.0, "zoneout_c": 0.0, "dropout": 0.0, "recurrent_dropout": 0.0,
        "weight_dropout": 0.0, "return_sequences": True, "dtype": "float32",
        "merge_mode": "concat", "reverse": False,
    }  # fmt: skip
    assert as_spec(1, **SIZES) == Spec(3, 5)
    assert (USUAL.cell, USUAL.rates, USUAL.num_directions) == (Cell(), Rates(), 1)


@st.composite
def options(draw: st.DrawFn, num_directions: int) -> dict[str, Any]:
    """Arguments that make a layer, any of them left out."""
    H = draw(st.integers(1, 7))
    rate = st.floats(0, 0.875, width=16)
    bound = st.none() | st.floats(0.125, 8, width=16)
    activation = st.sampled_from(ACTIVATIONS)
    flags = ("bias", "batch_first", "peepholes", "coupled_gates", "layer_norm", "return_sequences")
    choices = {
        "num_layers": st.integers(1, 3),
        "proj_size": st.integers(0, H - 1),
        "clip": bound,
        "cell_clip": bound,
        "dtype": st.sampled_from(["float32", "float64", np.float32, np.dtype(np.float64), "<f4"]),
        **dict.fromkeys(flags, st.booleans() | st.builds(np.bool_, st.booleans())),
        **dict.fromkeys(("gate_activation", "cell_activation", "output_activation"), activation),
        **dict.fromkeys((*Rates._fields, "zoneout_h", "zoneout_c"), rate),
    }
    if num_directions == 2:
        choices["merge_mode"] = st.sampled_from(["concat", "sum", "mean", "product", None])
    else:
        choices["reverse"] = st.booleans()
    sizes = {"input_size": draw(st.integers(1, 4)), "hidden_size": H}
    return sizes | draw(st.fixed_dictionaries({}, optional=choices))


@given(st.data(), st.integers(1, 2))
def test_options_make_the_layer_again(data: st.DataObject, num_directions: int) -> None:
    given_ = data.draw(options(num_directions))
    kind = (LSTM, BiLSTM)[num_directions - 1]
    layer = kind(**given_, seed=0)
    spec = layer._spec
    assert spec == as_spec(num_directions, **given_)
    written = json.dumps(layer.options)
    assert as_spec(num_directions, **json.loads(written)) == spec
    assert kind(**json.loads(written))._spec == spec
    assert all(spec.options[name] == value for name, value in spec.chosen.items())
    least = {name: spec.options[name] for name in REQUIRED} | spec.chosen
    assert as_spec(num_directions, **least) == spec
    assert all(DEFAULTS[name] != value for name, value in spec.chosen.items())
    for other in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other._spec == spec
        assert repr(other) == repr(layer)
    for name in {*REQUIRED, *DEFAULTS} & set(Spec._fields):
        assert getattr(layer, name) == getattr(spec, name)


@pytest.mark.parametrize("num_directions", [1, 2])
@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("hidden_size", 0, ValueError),
        ("num_layers", MAX_LAYERS + 1, ValueError),
        ("bias", 1, TypeError),
        ("proj_size", 5, ValueError),
        ("dtype", "float16", ValueError),
        ("clip", -1.0, ValueError),
        ("dropout", 1.0, ValueError),
        ("gate_activation", "swish", ValueError),
        ("merge_mode", "ave", ValueError),
        ("reverse", None, TypeError),
    ],
)
def test_checks_are_the_constructors(
    num_directions: int, option: str, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=rf"^{option}: got ") as ours:
        as_spec(num_directions, **SIZES | {option: value})
    with pytest.raises(error) as theirs:
        (LSTM, BiLSTM)[num_directions - 1](**SIZES | {option: value})
    assert str(ours.value) == str(theirs.value)


def test_unknown_and_missing_options() -> None:
    with pytest.raises(TypeError, match="hiden_size"):
        as_spec(1, input_size=3, hiden_size=5)
    with pytest.raises(TypeError, match="hidden_size"):
        as_spec(1, input_size=3)
    with pytest.raises(TypeError, match="bidirectional"):
        as_spec(1, **SIZES, bidirectional=True)


# The base class, and attributes that there are not


def test_a_base_is_no_layer() -> None:
    assert issubclass(LSTM, LSTMBase)
    assert issubclass(BiLSTM, LSTMBase)
    with pytest.raises(TypeError, match=r"^LSTMBase: no layer by itself, expected LSTM or BiLSTM"):
        LSTMBase(3, 5)


@pytest.mark.parametrize("kind", [LSTM, BiLSTM])
def test_misspelt_attributes_are_refused(kind: type[LSTMBase]) -> None:
    layer = kind(3, 5)
    with pytest.raises(AttributeError, match="hiden_size") as error:
        layer.hiden_size = 3  # type: ignore[attr-defined]
    assert (error.value.name, error.value.obj) == ("hiden_size", layer)  # for "did you mean"
    for name in [
        *REQUIRED,
        *DEFAULTS,
        *NO_OPTIONS,
        "num_directions",
        "output_size",
        "cell",
        "bits",
    ]:
        with pytest.raises(AttributeError, match=rf"^{name}: fixed when the layer was made"):
            setattr(layer, name, 1)
        with pytest.raises(AttributeError, match=rf"^{name}: fixed when the layer was made"):
            delattr(layer, name)
    for name in ("parameters", "options", "drops", "needs_whole_sequences"):
        with pytest.raises(AttributeError, match=name):
            setattr(layer, name, 1)
    assert weakref.ref(layer)() is layer


def things_with_attributes() -> list[Any]:
    """One of each class whose attributes users see, other than the layers."""
    layer = LSTM(3, 5, seed=0)
    x = np.ones((4, 2, 3), np.float32)
    network = training.Network(layer, 1)
    sequences = training.Sequences(x, np.ones((4, 2, 1)))
    optimizers = [optim.SGD(0.1), optim.Adam(), optim.AdamW()]
    found = weights.Found("", "", dict(layer.options), False, layer.state_dict())
    return [
        *(layer.stream(), layer.record(x)[2], network, sequences, *optimizers, found),
        training.Trainer(network, sequences, None, optim.Adam()),
        training.Scaling.fit(sequences),
        training.Score(),
    ]


@pytest.mark.parametrize("thing", things_with_attributes(), ids=lambda thing: type(thing).__name__)
def test_misspelt_attributes_are_refused_everywhere(thing: Any) -> None:
    with pytest.raises(AttributeError, match="lengthz"):
        thing.lengthz = 1
    assert not hasattr(thing, "lengthz")


def test_options_of_another_optimizer_are_refused() -> None:
    for optimizer, name in ((optim.SGD(0.1), "betas"), (optim.Adam(), "momentum")):
        with pytest.raises(AttributeError, match=name):
            setattr(optimizer, name, 0.5)


class Halving(optim.Adam):
    """An optimiser of a user's own."""

    def __init__(self, lr: float) -> None:
        super().__init__(lr, amsgrad=True)
        self.halved = 0

    def halve(self) -> None:
        """Halve the rate."""
        self.lr /= 2
        self.halved += 1


def test_an_optimizer_of_ones_own_takes_attributes() -> None:
    optimizer = Halving(0.5)
    optimizer.halve()
    optimizer.step(np.ones(3), np.ones(3))
    for made in (copy.copy(optimizer), copy.deepcopy(optimizer)):
        assert (made.lr, made.halved, made.amsgrad) == (0.25, 1, True)
        assert made.state_dict()["step"] == 1
    assert weakref.ref(optimizer)() is optimizer


class Tagger(LSTM):
    """A class of a user's own, with more than the layer has."""

    def __init__(self, labels: list[str], **options: Any) -> None:
        super().__init__(3, 5, **options)
        self.labels = labels


def test_a_class_of_ones_own_takes_attributes() -> None:
    tagger = Tagger(["a", "b"], peepholes=True, seed=0)
    tagger.note = "fine"  # type: ignore[attr-defined]
    assert repr(tagger) == "Tagger(3, 5, peepholes=True, dtype=float32)"
    for made in (copy.copy(tagger), copy.deepcopy(tagger), pickle.loads(pickle.dumps(tagger))):
        assert type(made) is Tagger
        assert (made.labels, made.note) == (["a", "b"], "fine")
        assert np.array_equal(made.parameters, tagger.parameters)
    with pytest.raises(AttributeError, match=r"^dropout: fixed"):
        tagger.dropout = 0.5
