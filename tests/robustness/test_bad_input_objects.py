"""Construction, parameters, streams, optimisers and files with every kind of input; see
`test_bad_input.py`, which has the calls.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastlstm
from fastlstm import LSTM, BiLSTM, _core, optim
from fastlstm.variants import ACTIVATIONS
from fastlstm.weights import Head
from support.arrays import assert_same_bits
from support.bad_input import (
    TARGETS,
    Draw,
    bad_targets,
    not_real,
    pick,
    plain,
    reals,
    trials,
    tried,
    values_of,
    wrong_shape,
)
from support.layers import layer_class

ERRORS = (TypeError, ValueError)
DTYPES = [np.float32, np.float64]


class Breaks:
    """Raises whatever is asked of it."""

    def __index__(self) -> int:
        raise ZeroDivisionError

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise ZeroDivisionError

    def __repr__(self) -> str:
        raise ZeroDivisionError


NO_SIZE = [0, -1, 2**63, -(2**70), 10**5000, 1.0, "3", None, True, [1], np.ones(2, int), 1j, b"1",
           np.float32(2), np.True_, float("nan"), object()]  # fmt: skip
NO_COUNT = [*NO_SIZE, 65, 2**31, 2**32 + 1, 2**62]
NO_FLAG = [0, 1, None, "True", 10**5000, [True], np.ones(1, bool), 1.0, object(), np.array(True)]
NO_NUMBER = ["1", None, True, 1j, [1.0], np.ones(1), np.array(1.0), np.complex64(1), object(), b"1"]
NO_FINITE = [float("nan"), float("inf"), -float("inf"), 10**400, -(10**5000), np.float16("inf")]
NO_RATE = [-0.1, 1.0000001, -(2.0**-1074), 2, -1, *NO_FINITE, *NO_NUMBER]
NO_ACTIVATION = ["softmax", "", None, 3, "Tanh", "relu\0", ["relu"], b"relu", {}, 10**5000]
NO_BOUND = [0, 0.0, -1.0, 1e-320, False, *NO_FINITE, *(v for v in NO_NUMBER if v is not None)]

#: For each argument of the layers, values that it can't have. Those of sizes go on below.
WRONG: dict[str, list[Any]] = {
    "input_size": NO_SIZE,
    "hidden_size": NO_SIZE,
    "num_layers": [*NO_SIZE, 1001, 2**31, 2**62],
    "proj_size": [*[v for v in NO_SIZE if not (isinstance(v, int) and v == 0)], 5, 6, 2**31, 2**62],
    **dict.fromkeys(("bias", "batch_first", "peepholes", "coupled_gates", "layer_norm"), NO_FLAG),
    **dict.fromkeys(("reverse", "return_sequences"), NO_FLAG),
    **dict.fromkeys(("gate_activation", "cell_activation", "output_activation"), NO_ACTIVATION),
    **dict.fromkeys(("clip", "cell_clip"), NO_BOUND),
    **{name: [1, 1.0, *NO_RATE] for name in ("dropout", "recurrent_dropout", "weight_dropout")},
    **dict.fromkeys(("zoneout_h", "zoneout_c"), NO_RATE),
    "merge_mode": ["mul", "", 3, True, "Sum", ["sum"], b"sum", {}, np.array(["sum"]), 10**5000],
    "dtype": [np.float16, np.longdouble, "int32", "a", "no such", ">f4", None, 3, complex, object,
              np.floating, [("a", "f4")], "f4,f4", ("f4", 2), {"names": ["a"]}, slice(1),
              "float32 ", "float32\0", "\xe9", 10**5000, np.ma, lambda: 1],
    "forget_bias": [*NO_FINITE, *(v for v in NO_NUMBER if v is not None), 1e300],
    "seed": [True, False, [], (), -1, [-1], "x", b"x", 1.5, {}, {1: 2}, object(), [1.5], [None],
             np.zeros(0, int), np.array(3.0), 1j, float("nan"), np.int64(-3), -(10**5000),
             np.False_],
    "isa": ["mmx", "", 3, b"scalar", True, ["scalar"], np.array(["scalar"]), "SCALAR", "scalar\0",
            10**5000],
}  # fmt: skip

#: And some that it can.
RIGHT: dict[str, list[Any]] = {
    "input_size": [1, 3, np.int64(3), np.uint8(3), np.array(3)],
    "hidden_size": [5, np.int16(5), 6],
    "num_layers": [1, 2, np.int8(2)],
    "proj_size": [0, 1, 4, np.int64(2)],
    **{
        name: [True, False, np.True_]
        for name in ("bias", "batch_first", "peepholes", "coupled_gates")
    },
    **{name: [True, False, np.False_] for name in ("layer_norm", "return_sequences")},
    **{name: [*ACTIVATIONS, np.str_("relu")] for name in ("gate_activation", "cell_activation")},
    "output_activation": list(ACTIVATIONS),
    **{
        name: [None, 1, 0.5, np.float32(2), np.int8(3), 1e-37, 1e38]
        for name in ("clip", "cell_clip")
    },
    **{name: [0, 0.5, np.float16(0.5), 1e-320, 0.999] for name in ("dropout", "recurrent_dropout")},
    "weight_dropout": [0, 0.5, np.float64(0.1)],
    **{name: [0, 1, 0.5, np.float32(1), 1e-320] for name in ("zoneout_h", "zoneout_c")},
    "dtype": ["float32", "f8", float, np.float32, np.dtype("=f4"), "<f8", "d"],
    "seed": [None, 0, 2**200, [1, 2], np.int64(3), np.random.Philox(1), np.random.SeedSequence(2)],
    "isa": [None, *_core.available_isas()],
}


@trials(500)
@given(st.data())
def test_construction(data: Any) -> None:
    tried["constructions"] += 1
    draw = data.draw
    make = layer_class(draw(st.integers(1, 2)))
    options: dict[str, Any] = {"input_size": 3, "hidden_size": 5}
    for name in draw(st.lists(st.sampled_from(sorted(RIGHT)), max_size=6, unique=True)):
        options[name] = pick(draw, RIGHT[name])
    if draw(st.booleans()):
        layer = make(**options)
        again = type(layer)(**layer.options)
        assert again.options == layer.options
        x = np.ones((2, layer.input_size))
        assert layer(x)[1][1].shape == (layer.num_layers * layer.num_directions, layer.hidden_size)
        return
    name = draw(st.sampled_from(sorted(WRONG)))
    both = [True] if make is BiLSTM and name == "reverse" else []
    options |= {"hidden_size": 5, name: pick(draw, [*WRONG[name], *both])}
    with pytest.raises(ERRORS) as error:
        make(**options)
    assert str(error.value).startswith(f"{name}: "), error.value
    assert len(str(error.value)) < 1000


def test_values_that_raise_themselves() -> None:
    for name in ("input_size", "bias", "clip", "dtype", "gate_activation", "seed", "isa"):
        with pytest.raises((*ERRORS, ZeroDivisionError)) as error:
            LSTM(**{"input_size": 3, "hidden_size": 5, name: Breaks()})
        if not isinstance(error.value, ZeroDivisionError):
            assert str(error.value).startswith(f"{name}: ")


@trials(300)
@given(st.data())
def test_parameters(data: Any) -> None:
    tried["parameters"] += 1
    draw = data.draw
    dtype = pick(draw, DTYPES)
    layer = layer_class(draw(st.integers(1, 2)))(
        2, pick(draw, [1, 3, 9]), 2, dtype=dtype, isa=pick(draw, _core.available_isas()), seed=1
    )
    x = values_of((3, 2), dtype, 0)
    before, y = layer.parameters.copy(), layer(x)[0]
    shapes = {name: array.shape for name, array in layer.state_dict().items()}
    if draw(st.booleans()):  # a good vector, or good arrays
        vector = draw(reals(layer.parameters.shape))
        arrays = {name: draw(reals(shape)) for name, shape in shapes.items()}
        by_name = draw(st.booleans())
        if by_name:
            layer.load_state_dict(arrays)
            expected = [plain(a, dtype) for a in arrays.values()]
        else:
            layer.load_parameters(vector)
            expected = [plain(vector, dtype)]
        whole = np.concatenate([a.reshape(-1) for a in expected])
        assert_same_bits(layer.parameters, whole)
        other = type(layer)(**layer.options)
        other.load_parameters(whole)
        assert_same_bits(layer(x)[0], other(x)[0])
        return
    case = draw(st.integers(0, 3))
    arrays = dict(layer.state_dict())
    if case == 0:
        wrong = draw(st.one_of(not_real(before.shape), wrong_shape(before.shape)))
        with pytest.raises(ERRORS, match=r"^vector: "):
            layer.load_parameters(wrong)
    elif case == 1:
        name = pick(draw, sorted(shapes))
        arrays[name] = draw(st.one_of(not_real(shapes[name]), wrong_shape(shapes[name])))
        extra = pick(draw, [None, 3, 10**5000, b"weight", "x" * 10**4, ("a",), "weight_ih_l9"])
        if extra is not None:
            arrays[extra] = 1
        if draw(st.booleans()):
            del arrays[pick(draw, [n for n in sorted(shapes) if n != name])]
        with pytest.raises(ValueError, match=rf"^arrays: .*{name}") as error:
            layer.load_state_dict(arrays)
        assert len(str(error.value)) < 2000
    elif case == 2:
        wrong = pick(draw, [None, [], "weights", 3, [("weight_ih_l0", 1)], before, object()])
        with pytest.raises(TypeError, match=r"^arrays: "):
            layer.load_state_dict(wrong)
    else:
        wrong = draw(st.one_of(not_real(before.shape), wrong_shape(before.shape)))
        if isinstance(wrong, np.ma.MaskedArray):
            wrong = wrong[:-1]
        with pytest.raises(ERRORS, match=r"^vector: "):
            layer.named_views(wrong)
    assert_same_bits(layer.parameters, before)
    assert_same_bits(layer(x)[0], y)


@trials(250)
@given(st.data())
def test_from_arrays(data: Any) -> None:
    tried["from_arrays"] += 1
    draw = data.draw
    D, G, H, I = draw(st.integers(1, 2)), 4, 3, 2
    make = layer_class(D)
    shapes = {"weight_ih": (G * H, I), "weight_hh": (G * H, H), "bias_ih": (G * H,),
              "bias_hh": (G * H,)}  # fmt: skip
    good = {name: [np.ones(shape)] * D for name, shape in shapes.items()}
    for name, each in good.items():
        good[name] = [draw(reals(shapes[name])) for _ in each]
    if draw(st.booleans()):
        layer = make.from_arrays(**good, dtype=np.float64)
        for name, each in good.items():
            for d, array in enumerate(each):
                own = f"{name}_l0" + "_reverse" * d
                assert_same_bits(layer.state_dict()[own], plain(array, np.float64))
        return
    wrongs: dict[str, list[Any]] = {
        "convention": ["torch", None, 3, 10**5000, ["pytorch"], b"pytorch"],
        "order": ["ifg", "iiff", "", 3, ["i", "f", "g", "o"], b"ifgo", 10**5000],
        "layout": ["GH", "", 3, ["G", "H", "I"], b"GHI", 10**5000],
        "forget_bias": [*NO_FINITE, *(v for v in NO_NUMBER if v is not None)],
        "dtype": [v for v in WRONG["dtype"] if v is not None],
        "coupled_gates": NO_FLAG,
        "layer_norm": [*NO_FLAG, True],
        "hidden_size": [3],
        "seed": [3],
        "clip": NO_BOUND,
        **{name: [3.0, [], [[]], {}, {"i": 1}, {3: np.ones(3)}, "text"] for name in shapes},
    }
    for name, shape in shapes.items():
        k = draw(st.integers(0, D - 1))
        each = list(good[name])
        each[k] = draw(st.one_of(not_real(shape), wrong_shape(shape)))
        wrongs[name].append(each)
    wrongs["weight_hr"] = [np.ones((3, 3)), 3, [np.ones((1, 3))] * (D + 1), "text"]
    wrongs["peepholes"] = [np.ones(8), 3, [np.ones(9)] * (D + 1), "text", {"i": np.ones(3)}]
    name = pick(draw, sorted(wrongs))
    with pytest.raises(ERRORS) as error:
        make.from_arrays(**good | {"dtype": np.float64} | {name: pick(draw, wrongs[name])})
    # A size that does not fit may be told of the other array, where both say it.
    related = "weight" if name in ("weight_ih", "weight_hh", "weight_hr") else name
    assert str(error.value).startswith(related), (name, error.value)


def numbers(stream: Any) -> list[np.ndarray]:
    return list(stream.state)


@trials(300)
@given(st.data())
def test_streams(data: Any) -> None:
    tried["streams"] += 1
    draw = data.draw
    dtype, B = pick(draw, DTYPES), draw(st.integers(1, 3))
    layer = LSTM(
        draw(st.integers(1, 4)), pick(draw, [1, 3, 8, 17]), draw(st.integers(1, 2)), dtype=dtype,
        batch_first=draw(st.booleans()), isa=pick(draw, _core.available_isas()),
        peepholes=draw(st.booleans()), seed=1,
    )  # fmt: skip
    layer_proj = LSTM(layer.input_size, 5, proj_size=2, dtype=dtype, seed=2)
    layer = pick(draw, [layer, layer, layer_proj])
    I, P, H, L = layer.input_size, layer.output_size, layer.hidden_size, layer.num_layers
    stream, twin = layer.stream(pick(draw, [B, np.int64(B)])), layer.stream(B)
    for _ in range(draw(st.integers(1, 5))):
        tried["operations of streams"] += 1
        what = pick(draw, ["step", "push", "state", "reset", "bad", "bad"])
        single = B == 1 and draw(st.booleans())
        if what == "step":
            x = draw(reals((I,) if single else (B, I)))
            y = values_of((P,) if single else (B, P), dtype, 0)
            out = pick(draw, [None, pick(draw, TARGETS)(y)])
            got = stream.step(x, out)
            assert out is None or got is out
            assert_same_bits(np.array(got), twin.step(plain(x, dtype)).copy())
        elif what == "push":
            T = draw(st.integers(0, 4))
            outer = (T,) if single else (B, T) if layer.batch_first else (T, B)
            x = draw(reals((*outer, I)))
            out = pick(draw, [None, pick(draw, TARGETS)(np.zeros((*outer, P), dtype))])
            got = stream.push(x, out)
            assert out is None or got is out
            assert_same_bits(np.array(got), twin.push(plain(x, dtype)))
        elif what == "state":
            outer = (L,) if single else (L, B)
            h, c = draw(reals((*outer, P))), draw(reals((*outer, H)))
            stream.state = pick(draw, [(h, c), [h, c]])
            twin.state = plain(h, dtype), plain(c, dtype)
        elif what == "reset":
            mask = np.random.default_rng(draw(st.integers(0, 9))).random(B) < 0.5
            forms = [None, mask, mask.tolist(), tuple(mask), np.repeat(mask, 2)[::2], mask[::-1]]
            chosen = pick(draw, forms)
            stream.reset(chosen)
            twin.reset(None if chosen is None else np.array(chosen))
        else:
            bad_operation(draw, stream)
        for got, expected in zip(numbers(stream), numbers(twin), strict=True):
            assert_same_bits(got, expected)


def bad_operation(draw: Draw, stream: Any) -> None:
    """Something that a stream must refuse, by name."""
    B, I, P = stream.batch_size, stream.input_size, stream.output_size
    H, L, dtype = stream.hidden_size, stream.num_layers, stream.dtype
    x, y = np.zeros((B, I), dtype), np.zeros((B, P), dtype)
    flat = [(I,)] if B == 1 else []
    what = pick(draw, ["x_t", "chunk", "out", "out of a push", "state", "h", "c", "mask"])
    with pytest.raises(ERRORS) as error:  # noqa: PT012
        if what == "x_t":
            wrong = wrong_shape((B, I)).filter(lambda a: a.shape not in [(B, I), *flat])
            stream.step(draw(st.one_of(not_real((B, I)), wrong)))
        elif what == "chunk":
            wrong = np.zeros((*pick(draw, [(), (2,), (2, B), (B, 2), (1, 1, 1)]), I + 1), dtype)
            stream.push(draw(st.one_of(not_real((2, B, I)), st.just(wrong))))
        elif what == "out":
            bad = [*bad_targets(y.copy()), y[0] if B > 1 else np.zeros((2, P), dtype)]
            if I == P:
                bad += [x, x.view(x.dtype.newbyteorder("<"))]
            stream.step(x, pick(draw, bad))
        elif what == "out of a push":
            chunk = np.zeros((B, B, I), dtype)
            bad = bad_targets(np.zeros((B, B, P), dtype))
            stream.push(chunk, pick(draw, [*bad, chunk] if I == P else bad))
        elif what == "state":
            h = np.zeros((L, B, P))
            stream.state = pick(draw, [None, 3, "hc", h, {}, (), (h,), [h] * 3, iter([h, h])])
        elif what in ("h", "c"):
            pair: list[Any] = [np.zeros((L, B, P)), np.zeros((L, B, H))]
            k = int(what == "c")
            fits = [pair[k].shape, (L, pair[k].shape[-1])] if B == 1 else [pair[k].shape]
            wrong = wrong_shape(pair[k].shape).filter(lambda a: a.shape not in fits)
            pair[k] = draw(st.one_of(not_real(pair[k].shape), wrong))
            stream.state = pair
        else:
            good = np.ones(B, bool)
            wrongs = [good.astype(int), good.astype(object), np.ma.array(good),
                      np.ones(B + 1, bool),
                      good[None], True, "mask", {}, [[True], [True, False]], object()]  # fmt: skip
            stream.reset(pick(draw, wrongs))
    name = what.split()[0]
    assert str(error.value).startswith(f"{name}: "), (what, error.value)


@pytest.mark.parametrize("value", NO_SIZE, ids=range(len(NO_SIZE)))
def test_batch_sizes_that_are_none(value: Any) -> None:
    with pytest.raises(ERRORS, match=r"^batch_size: "):
        LSTM(2, 3).stream(value)


OPTIMISERS: list[tuple[type, dict[str, list[Any]]]] = [
    (optim.SGD, {
        "lr": [-1, *NO_FINITE, *NO_NUMBER], "momentum": [-0.1, *NO_FINITE, *NO_NUMBER],
        "dampening": [*NO_FINITE, *NO_NUMBER], "weight_decay": [-1e-9, *NO_FINITE, *NO_NUMBER],
        "nesterov": [*NO_FLAG, True],
    }),
    *((kind, {
        "lr": [-1, *NO_FINITE, *NO_NUMBER], "eps": [-1e-9, *NO_FINITE, *NO_NUMBER],
        "weight_decay": [-1, *NO_FINITE, *NO_NUMBER], "amsgrad": NO_FLAG,
        "betas": [3, None, (), (0.9,), (0.9, 1.0), (-0.1, 0.5), ("a", 0.5), [0.9] * 3, (True, 0.5),
                  np.ones((2, 2)), "ab", {0.1: 1, 0.2: 2}, (float("nan"), 0.5), (1j, 0.5)],
    }) for kind in (optim.Adam, optim.AdamW)),
]  # fmt: skip


@trials(300)
@given(st.data())
def test_optimisers(data: Any) -> None:
    tried["optimisers"] += 1
    draw = data.draw
    kind, wrong = pick(draw, OPTIMISERS)
    if draw(st.booleans()):
        name = pick(draw, sorted(wrong))
        with pytest.raises(ERRORS, match=rf"^{name}"):
            kind(**{"lr": 0.1, name: pick(draw, wrong[name])})
        return
    dtype, N = pick(draw, DTYPES), draw(st.integers(0, 9))
    optimiser = kind(pick(draw, [0, 0.1, 1e300, 1, np.float32(0.5)]))
    p, g = values_of((N,), dtype, 1), values_of((N,), dtype, 2)
    good = [lay for lay in TARGETS if lay(p).ndim == 1]
    twin, expected = kind(optimiser.lr), p.copy()
    p = pick(draw, good)(p)
    for _ in range(draw(st.integers(0, 2))):
        optimiser.step(p, pick(draw, good)(g))
        twin.step(expected, g)
    assert_same_bits(np.array(p), expected)
    state = {name: np.array(value) for name, value in optimiser.state_dict().items()}
    if draw(st.booleans()):
        arguments: Any = pick(draw, bad_targets(np.zeros_like(expected))), g
    else:
        bads = [each for each in bad_targets(g.copy()) if not is_only_read_only(each, g)]
        arguments = expected, pick(draw, [*bads, expected] if N else bads)
    with pytest.raises(ERRORS) as error:
        optimiser.step(*arguments)
    assert str(error.value).startswith(("parameters: ", "gradient: ")), error.value
    for key, value in optimiser.state_dict().items():
        assert np.array_equal(np.array(value), state[key])


def is_only_read_only(value: Any, good: np.ndarray) -> bool:
    """Whether a bad target is one for being read-only alone, which a gradient may be."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype == good.dtype
        and value.shape == good.shape
        and value.flags.c_contiguous
        and value.flags.aligned
        and not isinstance(value, np.ma.MaskedArray)
    )


@trials(150)
@given(st.data())
def test_states_of_optimisers(data: Any) -> None:
    tried["states of optimisers"] += 1
    draw = data.draw
    optimiser = optim.Adam(0.1)
    p = np.ones(3)
    optimiser.step(p, np.ones(3))
    state: dict[Any, Any] = optimiser.state_dict()
    name = pick(draw, sorted(state))
    wrongs: list[Any] = ["x", None, -1, float("nan"), 10**5000, {}, np.ones((3, 1)),
                         np.ones(2, "f4"),
                         object(), np.ma.ones(3), True, np.array("x")]  # fmt: skip
    if name in ("amsgrad", "decoupled_weight_decay"):
        wrongs = [each for each in wrongs if each is not True]
    change = draw(st.integers(0, 2))
    if change == 0:
        del state[name]
    elif change == 1:
        state[pick(draw, ["more", 3, b"step", (1,)])] = 1
    else:
        state[name] = pick(draw, wrongs)
    other = optim.Adam(0.3)
    with pytest.raises(ERRORS, match=r"^state: "):
        other.load_state_dict(state)
    assert repr(other.state_dict()) == repr(optim.Adam(0.3).state_dict())
    for each in (None, 3, [], "state"):
        with pytest.raises(TypeError, match=r"^state: "):
            other.load_state_dict(each)  # type: ignore[arg-type]


def test_clip_grad_norm() -> None:
    g = np.arange(5.0)
    for bad in bad_targets(g.copy()):
        if isinstance(bad, np.ndarray) and bad.shape == (6,):
            continue
        if isinstance(bad, np.ndarray) and bad.dtype == np.float32:
            continue
        with pytest.raises(ERRORS, match=r"^gradient: "):
            optim.clip_grad_norm(bad, 1.0)
    for value in [-1.0, float("nan"), -float("inf"), *NO_NUMBER]:
        with pytest.raises(ERRORS, match=r"^max_norm: "):
            optim.clip_grad_norm(g, value)
    for value in NO_FLAG:
        with pytest.raises(ERRORS, match=r"^error_if_nonfinite: "):
            optim.clip_grad_norm(g, 1.0, error_if_nonfinite=value)
    assert_same_bits(g, np.arange(5.0))


@pytest.mark.parametrize("value", NO_COUNT, ids=range(len(NO_COUNT)))
def test_thread_counts(value: Any) -> None:
    before = fastlstm.get_num_threads()
    with pytest.raises(ERRORS, match=r"^count: "):
        fastlstm.set_num_threads(value)
    with pytest.raises(ERRORS, match=r"^count: "), fastlstm.num_threads(value):
        pass
    assert fastlstm.get_num_threads() == before


def test_paths(tmp_path: Path) -> None:
    layer = LSTM(2, 3, seed=0)
    for path in [3, None, b"model.npz", 1.5, ["model.npz"], object(), {}, "a\0b", "\ud800"]:
        with pytest.raises(ERRORS, match=r"^path: "):
            fastlstm.load(path)  # type: ignore[arg-type]
        with pytest.raises(ERRORS, match=r"^path: "):
            fastlstm.save(layer, path)  # type: ignore[arg-type]
        with pytest.raises(ERRORS, match=r"^path: "):
            fastlstm.weights.read(path)  # type: ignore[arg-type]
    good = tmp_path / "model.npz"
    fastlstm.save(layer, good)
    content = good.read_bytes()
    for path in ["", tmp_path, tmp_path / ("x" * 300 + ".npz"), tmp_path / "no" / "such.npz"]:
        with pytest.raises((OSError, ValueError)):
            fastlstm.load(path)
        with pytest.raises(OSError, match=r"."):
            fastlstm.save(layer, path)
    with pytest.raises(ValueError, match=r"^path: got suffix '.txt'"):
        fastlstm.save(layer, tmp_path / "model.txt")
    bad: list[tuple[str, Any]] = [
        *(("layer", value) for value in (None, 3, "LSTM", LSTM, layer.stream())),
        *(("state", value) for value in (3, "hc", (), (1,), [1, 2, 3], np.ones((2, 1, 3)))),
        *(("h_0", (value, np.ones((1, 3)))) for value in (1, None, "h", np.ones((1, 1, 3)))),
        *(("c_0", (np.ones((1, 3)), value)) for value in (1, None, 1j, np.ones((3, 1)))),
        *(("head", value) for value in (3, "head", (1, 2), np.ones((1, 3)))),
        *(("head.weight", Head(value, np.ones(1))) for value in (3, None, np.ones((1, 2)))),
        *(("head.bias", Head(np.ones((1, 3)), value)) for value in (3, "b", np.ones(2))),
    ]  # fmt: skip
    for name, value in bad:
        argument = {"h_0": "state", "c_0": "state"}.get(name, name.partition(".")[0])
        with pytest.raises(ERRORS, match=rf"^{name}: "):
            fastlstm.save(**{"layer": layer, "path": good, argument: value})
    for options in ({"dtype": "i4"}, {"dtype": 10**5000}, {"batch_first": 1}, {"isa": "mmx"}):
        (name,) = options
        with pytest.raises(ERRORS, match=rf"{name}: "):
            fastlstm.load(good, **options)
    for chosen in (3, "no such", b"x", 10**5000, object()):
        with pytest.raises(ValueError, match="holds no LSTM named"):
            fastlstm.load(good, chosen)  # type: ignore[arg-type]
    assert good.read_bytes() == content
    assert os.listdir(tmp_path) == ["model.npz"]  # noqa: PTH208
