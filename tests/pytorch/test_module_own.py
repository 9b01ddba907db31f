"""The options of `fastlstm.torch.LSTM` that `torch.nn.LSTM` has not, beside `fastlstm.LSTM`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM
from support.optional import require

torch = require("torch")

import fastlstm.torch  # noqa: E402
from fastlstm.torch import _plain  # noqa: E402
from support.torch_modules import flat, gradients  # noqa: E402

CELLS: list[dict[str, Any]] = [
    {"peepholes": True, "clip": 0.7},
    {"coupled_gates": True, "gate_activation": "hard_sigmoid", "cell_clip": 0.9},
    {"peepholes": True, "coupled_gates": True, "layer_norm": True, "proj_size": 2},
    {"layer_norm": True, "bias": False, "cell_activation": "relu", "output_activation": "identity"},
    {"zoneout_h": 0.25, "zoneout_c": 0.125},
    {"reverse": True},
    {"reverse": True, "return_sequences": False, "batch_first": True},
]
BOTH: list[dict[str, Any]] = [
    {"merge_mode": "sum"},
    {"merge_mode": "mean", "batch_first": True},
    {"merge_mode": "product", "return_sequences": False},
    {"merge_mode": None, "batch_first": True},
    {"merge_mode": None, "return_sequences": False},
]
CASES = [(1, case) for case in CELLS] + [(2, case) for case in [*CELLS[:5], *BOTH]]
NAMES = [f"{D}-" + "-".join(f"{k}={v}" for k, v in case.items()) for D, case in CASES]

LENGTHS = [2, 6, 0, 4]
RESETS = np.random.default_rng(5).random((6, 4)) < 0.3
RAGGED: dict[str, dict[str, Any]] = {
    "": {},
    "lengths": {"lengths": LENGTHS},
    "resets": {"resets": RESETS},
    "both": {"lengths": torch.tensor(LENGTHS), "resets": torch.from_numpy(RESETS)},
}


def sides(D: int, case: dict[str, Any], dtype: str = "float64") -> tuple[Any, Any]:
    """A layer and a module of the same parameters, 3 numbers to 5 units in two layers."""
    layer = (LSTM, BiLSTM)[D - 1](3, 5, 2, **case, dtype=dtype, seed=1)
    module = fastlstm.torch.LSTM(3, 5, 2, **case, bidirectional=D == 2, dtype=getattr(torch, dtype))
    assert list(module.state_dict()) == list(layer.state_dict())
    module.load_state_dict({k: torch.tensor(v) for k, v in layer.state_dict().items()})
    module.eval()
    return layer, module


def parts_of(results: Any) -> list[np.ndarray]:
    """All arrays of a result in order."""
    y, state = results
    return [*(y if isinstance(y, tuple) else (y,)), *state]


def arrays(layer: Any, batch_first: bool) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(2)
    rows = layer.num_layers * layer.num_directions
    x = rng.normal(size=(4, 6, 3) if batch_first else (6, 4, 3))
    return x, (rng.normal(size=(rows, 4, layer.output_size)), rng.normal(size=(rows, 4, 5)))


@pytest.mark.parametrize("ragged", RAGGED.values(), ids=RAGGED.keys())
@pytest.mark.parametrize(("D", "case"), CASES, ids=NAMES)
def test_equals_the_layer(D: int, case: dict[str, Any], ragged: dict[str, Any]) -> None:
    layer, module = sides(D, case)
    x, state = arrays(layer, layer.batch_first)
    given = dict(ragged)
    if layer.batch_first and "resets" in given:
        given["resets"] = given["resets"].T
    for with_state in (True, False):
        expected = parts_of(layer(x, state if with_state else None, **given))
        tensors = tuple(map(torch.tensor, state)) if with_state else None
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                got = flat(module(torch.tensor(x), tensors, **given))
            for ours, theirs in zip(got, expected, strict=True):
                assert ours.shape == theirs.shape
                assert np.array_equal(ours.detach().numpy(), theirs)


def test_one_sequence_equals_the_layer() -> None:
    layer, module = sides(2, {"merge_mode": "sum", "peepholes": True})
    x, state = arrays(layer, False)
    x, state = x[:, 0], tuple(part[:, 0] for part in state)
    for given in ({}, {"resets": RESETS[:, 0]}):
        expected = parts_of(layer(x, state, **given))
        got = flat(module(torch.tensor(x), tuple(map(torch.tensor, state)), **given))
        for ours, theirs in zip(got, expected, strict=True):
            assert np.array_equal(ours.detach().numpy(), theirs)


# Recorded, a layer with zoneout draws, from another generator than PyTorch's.
CERTAIN = [
    (name, *given) for name, given in zip(NAMES, CASES, strict=True) if "zoneout" not in name
]


@pytest.mark.parametrize("ragged", ["", "both"])
@pytest.mark.parametrize(
    ("D", "case"), [case for _, *case in CERTAIN], ids=[n for n, *_ in CERTAIN]
)
def test_gradients_equal_the_layers(D: int, case: dict[str, Any], ragged: str) -> None:
    layer, module = sides(D, case)
    x, state = arrays(layer, layer.batch_first)
    given = dict(RAGGED[ragged])
    if layer.batch_first and "resets" in given:
        given["resets"] = given["resets"].T
    leaves = [torch.tensor(part, requires_grad=True) for part in (x, *state)]
    got = flat(module(leaves[0], (leaves[1], leaves[2]), **given))
    seeds = [torch.randn(part.shape, dtype=part.dtype) for part in got]
    own = list(module.parameters())
    found = torch.autograd.grad(got, [*leaves, *own], seeds)

    *_, tape = layer.record(x, state, **given)
    dy: Any = [seed.numpy() for seed in seeds[:-2]]
    grads = tape.backward(
        tuple(dy) if layer.merge_mode is None else dy[0], tuple(s.numpy() for s in seeds[-2:])
    )
    expected = [grads.x, grads.h_0, grads.c_0, *layer.named_views(grads.params).values()]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-9, atol=1e-12)


def test_packed_sequences_are_merged_and_left_out() -> None:
    sequences = [torch.randn(n, 3, dtype=torch.float64) for n in (2, 6, 4)]
    packed = torch.nn.utils.rnn.pack_sequence(sequences, enforce_sorted=False)
    for case in BOTH:
        _, module = sides(2, case)
        y, (h_n, _) = module(packed)
        parts = y if module.merge_mode is None else (y,)
        for b, sequence in enumerate(sequences):
            alone, (h_alone, _) = module(sequence)
            alones = alone if module.merge_mode is None else (alone,)
            assert torch.equal(h_n[:, b], h_alone)
            for part, expected in zip(parts, alones, strict=True):
                if module.return_sequences:
                    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(part)
                    assert torch.equal(padded[: len(sequence), b], expected)
                else:
                    assert torch.equal(part[b], expected)


def test_training_drops_as_often_as_asked() -> None:
    torch.manual_seed(0)
    module = fastlstm.torch.LSTM(3, 40, recurrent_dropout=0.25, zoneout_c=0.5, zoneout_h=0.125)
    masks = module._draw(torch.zeros(30, 20, 3), 20, None, torch.float32)
    assert masks.between is None
    assert masks.recurrent.shape == (1, 20, 40)
    assert set(masks.recurrent.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert masks.zoneout_h.shape == masks.zoneout_c.shape == (1, 30, 20, 40)
    for mask, rate in (
        (masks.recurrent != 0, 0.75),
        (masks.zoneout_h, 0.125),
        (masks.zoneout_c, 0.5),
    ):
        assert abs(mask.double().mean().item() - rate) < 0.05


@pytest.mark.parametrize("ragged", RAGGED.values(), ids=RAGGED.keys())
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
def test_training_uses_what_was_drawn(ragged: dict[str, Any], grad: bool) -> None:
    rates = {"dropout": 0.5, "recurrent_dropout": 0.25, "zoneout_h": 0.25, "zoneout_c": 0.5}
    module = fastlstm.torch.LSTM(3, 5, 2, bidirectional=True, **rates, dtype=torch.float64)
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    with torch.set_grad_enabled(grad):
        torch.manual_seed(1)
        first = flat(module(x, **ragged))
        torch.manual_seed(1)
        again = flat(module(x, **ragged))
        other = flat(module(x, **ragged))
        plain = flat(module.eval()(x, **ragged))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], plain[0])


def test_training_without_ragged_sequences_is_the_plain_computation() -> None:
    rates = {"dropout": 0.5, "recurrent_dropout": 0.25, "zoneout_h": 0.25, "zoneout_c": 0.5}
    module = fastlstm.torch.LSTM(3, 5, 2, bidirectional=True, **rates, dtype=torch.float64)
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    zeros = torch.zeros(4, 4, 5, dtype=torch.float64)
    torch.manual_seed(1)
    got = module(x)
    torch.manual_seed(1)
    masks = module._draw(x, 4, None, torch.float64)
    expected = _plain.lstm(
        x, zeros, zeros, list(module.parameters()), masks=masks, spec=module._texts[torch.float64]
    )
    for ours, theirs in zip(flat(got), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    own = list(module.parameters())
    for ours, theirs in zip(gradients(got, own), gradients(expected, own), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_weight_dropout_drops_numbers_of_the_recurrent_weights() -> None:
    module = fastlstm.torch.LSTM(3, 5, weight_dropout=0.5, dtype=torch.float64)
    twin = fastlstm.torch.LSTM(3, 5, dtype=torch.float64)
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    torch.manual_seed(1)
    y, _ = module(x)
    torch.manual_seed(1)
    dropped = {
        name: torch.nn.functional.dropout(value, 0.5) if name == "weight_hh_l0" else value
        for name, value in module.named_parameters()
    }
    expected, _ = torch.func.functional_call(twin, dropped, (x,))
    assert torch.equal(y, expected)
    (found,) = torch.autograd.grad(y.sum(), module.weight_hh_l0, retain_graph=True)
    (other,) = torch.autograd.grad(expected.sum(), module.weight_hh_l0)
    assert torch.equal(found, other)
    assert (found == 0).any()


def test_says_its_options() -> None:
    module = fastlstm.torch.LSTM(
        3, 5, peepholes=True, zoneout_h=0.25, merge_mode="sum", bidirectional=True, strict=True
    )
    assert repr(module) == (
        "LSTM(3, 5, bidirectional=True, peepholes=True, zoneout_h=0.25, merge_mode='sum', "
        "strict=True)"
    )
    assert module.cell.peepholes
    assert not module.reverse


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": -1.0}, "clip: got -1.0, expected a positive number or None"),
        ({"gate_activation": "gelu"}, "gate_activation: got 'gelu'"),
        ({"recurrent_dropout": 1.0}, "recurrent_dropout: got 1.0"),
        ({"merge_mode": "sum"}, "merge_mode"),
        ({"reverse": True, "bidirectional": True}, "reverse: got True"),
    ],
)
def test_refuses_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fastlstm.torch.LSTM(3, 5, **options)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lengths": [7, 1, 1, 1]}, "lengths: got 1 to 7"),
        ({"lengths": [1, 1]}, "lengths: got shape"),
        ({"resets": np.zeros((4, 6), bool)}, "resets: got shape"),
    ],
)
def test_refuses_lengths_and_resets(given: dict[str, Any], message: str) -> None:
    module = fastlstm.torch.LSTM(3, 5)
    with pytest.raises(ValueError, match=message):
        module(torch.zeros(6, 4, 3), **given)


def test_packed_sequences_have_lengths_of_their_own() -> None:
    packed = torch.nn.utils.rnn.pack_sequence([torch.zeros(4, 3)])
    with pytest.raises(ValueError, match="lengths, resets: got them with a PackedSequence"):
        fastlstm.torch.LSTM(3, 5)(packed, lengths=[4])


@pytest.mark.parametrize("randomness", ["same", "different"])
@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2, "dropout": 0.5},
        {"recurrent_dropout": 0.5},
        {"weight_dropout": 0.5},
        {"zoneout_h": 0.5, "zoneout_c": 0.5},
    ],
    ids=lambda options: ",".join(options),
)
def test_vmap_draws_for_all_alike_or_for_each(options: dict[str, Any], randomness: str) -> None:
    layer = fastlstm.torch.LSTM(4, 5, **options)
    x = torch.randn(6, 3, 4).expand(2, 6, 3, 4)
    y = torch.vmap(lambda x: layer(x)[0], randomness=randomness)(x)
    assert torch.equal(y[0], y[1]) == (randomness == "same")
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(lambda x: layer(x)[0])(x)
