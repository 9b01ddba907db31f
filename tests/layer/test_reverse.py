"""An LSTM from the last step to the first: ONNX's and PyTorch's numbers, bits of a BiLSTM's half.

That it goes together with every other option is in ``test_variants.py`` and
``test_variants_exact.py``, whose layers are of this kind too.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM, _core, cli, reference
from fastlstm.variants import Cell
from support.arrays import assert_close, assert_same_bits, relative_difference
from support.layers import TOLERANCE, random_state, results
from support.masks import RATES, drawn_for
from support.onnx_runtime import onnx_runtime
from support.optional import require
from support.reference_cases import flat
from support.variant_cases import problem


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    before = fastlstm.get_num_threads()
    yield
    fastlstm.set_num_threads(before)


def back_in_time(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array[::-1])


def train(layer: Any, x: np.ndarray, state: Any, given: Any, **options: Any) -> list[np.ndarray]:
    """y, h_n, c_n and the gradients of x, h_0, c_0 and the parameters; given: dy and dstate."""
    y, states, tape = layer.record(x, state, **options)
    return [y, *states, *tape.backward(*given)]


# Against others


@pytest.mark.parametrize("lengths", [None, [5, 1, 3]])
@pytest.mark.parametrize(
    "options", [{}, {"peepholes": True, "sizes": (5, 3, 7, 17)}, {"coupled_gates": True}], ids=str
)
def test_onnx_runtime(options: dict[str, Any], lengths: list[int] | None) -> None:
    given = problem(options, seed=4)._replace(lengths=lengths)
    expected = onnx_runtime(given, {"direction": "reverse"})
    names = {name: options[name] for name in options if name in Cell._fields}
    for isa in _core.available_isas():
        sizes = given.sizes.input_size, given.sizes.hidden_size
        layer = LSTM(*sizes, reverse=True, dtype=np.float32, isa=isa, **names)
        layer.load_state_dict(given.parameters)
        got = results(layer(given.x, given.state, lengths=lengths))
        assert_close(dict(zip(expected, got, strict=True)), expected, 2e-6)
    y, (h_n, c_n) = reference.forward(
        given.x, given.state, given.parameters, reverse=True, **given.options
    )
    assert_close({"y": y, "h_n": h_n, "c_n": c_n}, expected, 2e-6)


@pytest.mark.parametrize(("T", "B", "H", "L"), [(1, 3, 5, 1), (9, 1, 33, 2), (30, 7, 17, 3)])
def test_pytorch_back_in_time(T: int, B: int, H: int, L: int, isa: str, dtype: type) -> None:
    torch = require("torch")
    rng = np.random.default_rng(T)
    layer = LSTM(4, H, L, reverse=True, dtype=dtype, isa=isa, seed=rng)
    x, state = rng.normal(size=(T, B, 4)).astype(dtype), random_state(rng, (L, B, H), dtype)
    dy, dstate = rng.normal(size=(T, B, H)).astype(dtype), random_state(rng, (L, B, H), dtype)
    theirs = torch.nn.LSTM(4, H, L).double()
    theirs.load_state_dict({n: torch.tensor(a) for n, a in layer.state_dict().items()})
    leaves = [torch.tensor(a, dtype=torch.float64).requires_grad_() for a in (x, *state)]
    y, (h_n, c_n) = theirs(leaves[0].flip(0), tuple(leaves[1:]))
    outputs = [y.flip(0), h_n, c_n]
    given = [torch.tensor(a, dtype=torch.float64) for a in (dy, *dstate)]
    found = torch.autograd.grad(outputs, [*leaves, *theirs.parameters()], given)
    expected = [*outputs, *found[:3], torch.cat([a.flatten() for a in found[3:]])]
    for ours, array in zip(train(layer, x, state, (dy, dstate)), expected, strict=True):
        assert relative_difference(ours, array.detach().numpy()) <= 10 * TOLERANCE[dtype]


# Bits of a BiLSTM's reverse half


def as_half(layer: LSTM, **options: Any) -> BiLSTM:
    """A BiLSTM whose reverse half is the layer: neither half reads the other."""
    both = BiLSTM(layer.input_size, layer.hidden_size, layer.num_layers, seed=9, **options)
    arrays = {name: array.copy() for name, array in both.state_dict().items()}
    for name, array in layer.state_dict().items():
        above = name.startswith("weight_ih") and not name.endswith("_l0")
        if above:
            arrays[name][:, layer.output_size :] = 0
        nothing = np.zeros_like(array)
        arrays[f"{name}_reverse"] = np.concatenate([nothing, array], axis=1) if above else array
    both.load_state_dict(arrays)
    return both


def half(array: np.ndarray) -> np.ndarray:
    """The second half of the last axis."""
    return np.ascontiguousarray(np.split(array, 2, axis=-1)[1])


def rows_beside_zeros(array: np.ndarray) -> np.ndarray:
    """States (L, B, n) as those of the reverse direction in (L*D, B, n)."""
    return np.stack([np.zeros_like(array), array], axis=1).reshape(-1, *array.shape[1:])


LAYOUTS: list[dict[str, Any]] = [
    {},
    {"lengths": [6, 0, 4, 1, 6, 2]},
    {"resets": np.arange(36).reshape(6, 6) % 5 == 2},
    {"lengths": [3, 6, 0, 1, 5, 2], "resets": np.arange(36).reshape(6, 6) % 4 == 0},
    {"offsets": [0, 5, 5, 20, 21, 30, 36]},
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"batch_first": True},
    {"return_sequences": False},
    {"peepholes": True, "proj_size": 3},
    {"layer_norm": True, "cell_clip": 0.5},
    {"coupled_gates": True, "bias": False},
]


@pytest.mark.slow(isa="scalar")
@pytest.mark.parametrize("given", LAYOUTS, ids=lambda given: " ".join(given))
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("L", [1, 2, 3])
def test_bits_of_a_bilstms_half(
    L: int, options: dict[str, Any], given: dict[str, Any], isa: str, dtype: type
) -> None:
    rng = np.random.default_rng(L)
    options = {"dtype": dtype, "isa": isa, **options}
    layer = LSTM(3, 17, L, reverse=True, seed=rng, **options)
    both, P = as_half(layer, **options), layer.output_size
    x = rng.normal(size=(36, 3) if "offsets" in given else (6, 6, 3)).astype(dtype)
    (h_0, c_0), (dh_n, dc_n) = (random_state(rng, (L, 6, 17), dtype) for _ in range(2))
    h_0, dh_n = (np.ascontiguousarray(a[..., :P]) for a in (h_0, dh_n))
    y, _ = layer(x, (h_0, c_0), **given)
    dy = rng.normal(size=y.shape).astype(dtype)

    got = train(layer, x, (h_0, c_0), (dy, (dh_n, dc_n)), **given)
    h_0, c_0, dh_n, dc_n = (rows_beside_zeros(a) for a in (h_0, c_0, dh_n, dc_n))
    dy = np.concatenate([np.zeros_like(dy), dy], axis=-1)
    expected = train(both, x, (h_0, c_0), (dy, (dh_n, dc_n)), **given)
    assert_same_bits(y, half(expected[0]))
    assert_same_bits(got[0], half(expected[0]))
    assert_same_bits(got[3], expected[3])
    for k in (1, 2, 4, 5):
        assert_same_bits(got[k], expected[k][1::2].copy())
    of_both = both.named_views(expected[6])
    for name, array in layer.named_views(got[6]).items():
        theirs = of_both[f"{name}_reverse"]
        above = name.startswith("weight_ih") and not name.endswith("_l0")
        assert_same_bits(array.copy(), half(theirs) if above else theirs.copy())


# Bits of itself


@pytest.mark.parametrize("B", [1, 5])
def test_forward_over_the_steps_back_in_time(B: int, isa: str, dtype: type) -> None:
    # Longer than the chunks in which the core takes time.
    rng = np.random.default_rng(B)
    T, L = 600, 2
    layer = LSTM(4, 9, L, reverse=True, dtype=dtype, isa=isa, seed=rng)
    forward = LSTM(4, 9, L, dtype=dtype, isa=isa)
    forward.load_state_dict(layer.state_dict())
    x, state = rng.normal(size=(T, B, 4)).astype(dtype), random_state(rng, (L, B, 9), dtype)
    dy, dstate = rng.normal(size=(T, B, 9)).astype(dtype), random_state(rng, (L, B, 9), dtype)
    got = train(layer, x, state, (dy, dstate))
    y, h_n, c_n, dx, dh_0, dc_0, dparameters = train(forward, x[::-1], state, (dy[::-1], dstate))
    expected = [back_in_time(y), h_n, c_n, back_in_time(dx), dh_0, dc_0]
    for a, b in zip(got[:6], expected, strict=True):
        assert_same_bits(a, b)
    # Sums over time are in blocks, which begin at the other end.
    assert relative_difference(got[6], dparameters) <= 100 * TOLERANCE[dtype]


@pytest.mark.parametrize("shape", [(200, 16, 9, 67, 2), (200, 1, 70, 129, 2), (40, 31, 7, 61, 3)])
@pytest.mark.parametrize("ragged", [False, True])
def test_threads(shape: tuple[int, ...], ragged: bool, dtype: type) -> None:
    T, B, I, H, L = shape
    rng = np.random.default_rng(0)
    layer = LSTM(I, H, L, reverse=True, dtype=dtype, seed=1)
    x, state = rng.normal(size=(T, B, I)).astype(dtype), random_state(rng, (L, B, H), dtype)
    dy, dstate = rng.normal(size=(T, B, H)).astype(dtype), random_state(rng, (L, B, H), dtype)
    options = {"lengths": rng.integers(0, T + 1, B)} if ragged else {}
    with fastlstm.num_threads(1):
        expected = train(layer, x, state, (dy, dstate), **options)
    for count in (2, 3):
        fastlstm.set_num_threads(count)
        for a, b in zip(train(layer, x, state, (dy, dstate), **options), expected, strict=True):
            assert_same_bits(a, b)
        assert_same_bits(layer(x, state, **options)[0], expected[0])


def test_a_sequence_alone_has_the_bits_it_has_in_a_batch(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    layer = LSTM(3, 17, 2, reverse=True, dtype=dtype, isa=isa, seed=1)
    x, state = rng.normal(size=(9, 7, 3)).astype(dtype), random_state(rng, (2, 7, 17), dtype)
    whole = results(layer(x, state))
    out = np.empty((9, 17), dtype)
    for b in range(7):
        y, (h_n, c_n) = layer(x[:, b], (state[0][:, b], state[1][:, b]), out=out)
        assert y is out
        for got, wanted in zip((y, h_n, c_n), whole, strict=True):
            assert_same_bits(got, wanted[:, b].copy())


def test_chunks_go_from_the_last_to_the_first(isa: str, dtype: type) -> None:
    layer = LSTM(3, 5, reverse=True, dtype=dtype, isa=isa, seed=0)
    x = np.random.default_rng(0).normal(size=(9, 2, 3))
    y, (h_n, c_n) = layer(x)
    later, state = layer(x[4:])
    sooner, last = layer(x[:4], state)
    for a, b in zip((np.concatenate([sooner, later]), *last), (y, h_n, c_n), strict=True):
        assert_same_bits(a, b)
    assert_same_bits(h_n[0], y[0])


@pytest.mark.parametrize("L", [1, 2])
@pytest.mark.parametrize(("T", "B"), [(0, 2), (1, 0), (0, 0), (1, 1)])
def test_few_steps_and_sequences(T: int, B: int, L: int, isa: str, dtype: type) -> None:
    # No step, or a single one, is the same in both directions.
    rng = np.random.default_rng(0)
    layer = LSTM(3, 5, L, reverse=True, dtype=dtype, isa=isa, seed=0)
    forward = LSTM(3, 5, L, dtype=dtype, isa=isa, seed=0)
    x, state = rng.normal(size=(T, B, 3)), random_state(rng, (L, B, 5), dtype)
    given = np.ones((T, B, 5), dtype), state
    got, expected = (train(each, x, state, given) for each in (layer, forward))
    for a, b in zip(got, expected, strict=True):
        assert_same_bits(a, b)


# The reference


@pytest.mark.parametrize("lengths", [None, [5, 1, 3]])
@pytest.mark.parametrize("options", [{}, {"layer_norm": True, "proj_size": 3, "zoneout_c": "mask"}])
def test_reference(options: dict[str, Any], lengths: list[int] | None) -> None:
    require("torch")
    from support import torch_oracle

    given = problem({**options, "layers": (2, 1), "between": True})._replace(lengths=lengths)
    arrays = (given.x, given.state, given.parameters)
    seeds = (given.dy, given.dstate)
    expected, gradients = torch_oracle.run_with_gradients(
        *arrays, *seeds, reverse=True, **given.options
    )
    y, (h_n, c_n) = reference.forward(*arrays, reverse=True, **given.options)
    assert_close({"y": y, "h_n": h_n, "c_n": c_n}, expected, 1e-13)
    got = flat(reference.backward(*arrays, *seeds, reverse=True, **given.options))
    assert_close(got, gradients, 1e-12)


@pytest.mark.parametrize("resets", [None, np.arange(28).reshape(7, 4) % 3 == 1])
def test_dropping_is_the_references(resets: Any, isa: str, dtype: type) -> None:
    rates = {name: RATES[name] for name in RATES if name != "weight_dropout"}
    layer = LSTM(3, 9, 2, reverse=True, **rates, dtype=dtype, isa=isa, seed=0)
    rng = np.random.default_rng(0)
    x, state = rng.normal(size=(7, 4, 3)).astype(dtype), random_state(rng, (2, 4, 9), dtype)
    dy, dstate = rng.normal(size=(7, 4, 9)).astype(dtype), random_state(rng, (2, 4, 9), dtype)
    got = train(layer, x, state, (dy, dstate), resets=resets, rng=3)
    options = {"cell": layer.cell, "masks": drawn_for(layer, 7, 4).masks, "num_layers": 2}
    options |= {"resets": resets, "reverse": True}
    y, states = reference.forward(x, state, layer.state_dict(), **options)
    dx, dinitial, named = reference.backward(x, state, layer.state_dict(), dy, dstate, **options)
    parameters = np.concatenate([a.reshape(-1) for a in named.values()])
    for a, b in zip(got, [y, *states, dx, *dinitial, parameters], strict=True):
        assert relative_difference(a, b) <= 10 * TOLERANCE[dtype]


# The option


def test_the_layer_says_so() -> None:
    layer = LSTM(3, 5, reverse=np.True_, seed=0)
    assert repr(layer) == "LSTM(3, 5, reverse=True, dtype=float32)"
    assert layer.reverse is True
    assert layer.needs_whole_sequences
    assert list(layer.state_dict()) == list(LSTM(3, 5).state_dict())
    with pytest.raises(AttributeError, match="reverse: fixed when the layer was made"):
        layer.reverse = False  # type: ignore[misc]
    x = np.random.default_rng(0).normal(size=(4, 3))
    for other in (pickle.loads(pickle.dumps(layer)), copy.copy(layer), copy.deepcopy(layer)):
        assert repr(other) == repr(layer)
        assert_same_bits(other(x)[0], layer(x)[0])
    assert not LSTM(3, 5).reverse
    assert not LSTM(3, 5).needs_whole_sequences
    assert not BiLSTM(3, 5).reverse
    assert BiLSTM(3, 5).needs_whole_sequences


def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^reverse: got 1, expected True or False"):
        LSTM(3, 5, reverse=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^reverse: got True, but a BiLSTM runs in both"):
        BiLSTM(3, 5, reverse=True)
    with pytest.raises(TypeError, match=r"^LSTM with reverse=True can't be streamed"):
        LSTM(3, 5, reverse=True).stream()
    both = BiLSTM(3, 5)
    with pytest.raises(ValueError, match=r"^reverse: got True, but num_directions=2"):
        reference.forward(
            np.ones((2, 1, 3)), None, both.state_dict(), num_directions=2, reverse=True
        )


def test_what_the_core_refuses() -> None:
    layer, both, y = LSTM(3, 5, reverse=True), BiLSTM(3, 5), np.zeros((1, 5), np.float32)
    with pytest.raises(ValueError, match="argument is out of range"):
        _core.StreamBase(layer._weights.model, 1, False, y)
    with pytest.raises(ValueError, match="argument is out of range"):
        _core.Model(both._spec._replace(reverse=True), both.parameters, None)


def test_the_command_line_reads_whole_sequences(tmp_path: Path) -> None:
    layer = LSTM(3, 5, reverse=True, seed=0)
    fastlstm.save(layer, tmp_path / "m.npz")
    x = np.random.default_rng(0).normal(size=(9, 3, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    files = [str(tmp_path / name) for name in ("m.npz", "x.npy", "y.npy")]
    assert cli.main(["run", *files[:2], "-o", files[2], "--batch-size", "2", "--chunk", "4"]) == 0
    assert_same_bits(np.load(files[2]), layer(x)[0])
