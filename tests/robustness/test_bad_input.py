"""Calls with every kind of input, good and bad: the reference's results, or the named error.

A call that is right gives the bits of the same values as plain arrays, and what the reference says.
One with a single thing wrong raises TypeError or ValueError beginning with the argument's name, and
changes nothing. Anything else, a warning too, is a bug.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import Gradients, Tape, _core, reference
from fastlstm.variants import ACTIVATIONS
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


@st.composite
def layers(draw: Draw, *, trains: bool = False) -> Any:
    """A layer of any options, sizes around those of the small vectors; ``trains``: none random."""
    D = draw(st.integers(1, 2))
    H = pick(draw, [1, 2, 3, 5, 8, 9, 17])
    options: dict[str, Any] = {
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "return_sequences": draw(st.integers(0, 3)) > 0,
        "dtype": pick(draw, [np.float32, np.float64]),
        "isa": pick(draw, _core.available_isas()),
        "seed": draw(st.integers(0, 99)),
    }
    if D == 2:
        modes = ["concat", "concat", "sum", "mean", "product", None]
        options["merge_mode"] = pick(draw, modes)
    else:
        options["reverse"] = draw(st.booleans())
    if draw(st.booleans()):
        options |= {
            "proj_size": draw(st.integers(0, H - 1)),
            "peepholes": draw(st.booleans()),
            "coupled_gates": draw(st.booleans()),
            "gate_activation": pick(draw, ["sigmoid", "hard_sigmoid"]),
            "cell_activation": pick(draw, ACTIVATIONS),
            "output_activation": pick(draw, ACTIVATIONS),
            "clip": pick(draw, [None, 0.7]),
            "cell_clip": pick(draw, [None, 0.9]),
            "layer_norm": draw(st.booleans()) and H > 2,
        }
        if not trains:
            options["zoneout_h"] = pick(draw, [0.0, 0.3])
            options["zoneout_c"] = pick(draw, [0.0, 0.2])
    return layer_class(D)(draw(st.integers(1, 4)), H, draw(st.integers(1, 3)), **options)


class Call(NamedTuple):
    """Arguments of a call, and the sizes that they have."""

    layer: Any
    arguments: dict[str, Any]  # x, and those of state, lengths, offsets, resets that there are
    steps: np.ndarray  # (B,) of each sequence
    T: int
    form: str  # "one", "batch" or "packed"

    @property
    def batch(self) -> tuple[int, ...]:
        """(B,), or () of one sequence."""
        return () if self.form == "one" else (len(self.steps),)

    @property
    def outer(self) -> tuple[int, ...]:
        """Of x and y."""
        if self.form == "batch":
            outer = (self.T, len(self.steps))
            return outer[::-1] if self.layer.batch_first else outer
        return (int(self.steps.sum()),)

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        outer = (self.layer.num_layers * self.layer.num_directions, *self.batch)
        return (*outer, self.layer.output_size), (*outer, self.layer.hidden_size)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """Of y, or of each of two."""
        merges = self.layer.num_directions == 2 and self.layer.merge_mode == "concat"
        outer = self.outer if self.layer.return_sequences else self.batch
        return (*outer, self.layer.output_size * (2 if merges else 1))

    def plain(self) -> dict[str, Any]:
        """The arguments as plain arrays of the same values."""
        dtypes = {"lengths": np.intp, "offsets": np.intp, "resets": np.bool_}
        made = {}
        for name, value in self.arguments.items():
            if name == "state":
                made[name] = tuple(plain(each, self.layer.dtype) for each in value)
            else:
                made[name] = plain(value, dtypes.get(name, self.layer.dtype))
        return made

    def padded(self, array: np.ndarray) -> np.ndarray:
        """x, y or resets as the reference has them: (T, B, ...)."""
        width = array.shape[len(self.outer) :]
        if self.form == "batch":
            return array.swapaxes(0, 1) if self.layer.batch_first else array
        if self.form == "one":
            return array[:, np.newaxis]
        T, B = int(self.steps.max(initial=0)), len(self.steps)
        whole = np.zeros((T, B, *width), array.dtype)
        for b, rows in enumerate(np.split(array, np.cumsum(self.steps)[:-1])[:B]):
            whole[: len(rows), b] = rows
        return whole

    def unpadded(self, array: np.ndarray) -> np.ndarray:
        """The inverse."""
        if self.form == "batch":
            return array.swapaxes(0, 1) if self.layer.batch_first else array
        if self.form == "one":
            return array[:, 0]
        parts = [array[:n, b] for b, n in enumerate(self.steps)]
        return np.concatenate([np.zeros((0, array.shape[2]), array.dtype), *parts])


def integers_as(draw: Draw, values: np.ndarray) -> Any:
    """Numbers from 0 as an array-like: a list, or an array of any width, order and stride."""
    form = pick(draw, ["list", "tuple", "u1", "i2", ">i4", ">u8", "i8", "spaced"])
    if form in ("list", "tuple"):
        return (list if form == "list" else tuple)(int(n) for n in values)
    return np.repeat(values, 3)[::3] if form == "spaced" else values.astype(form)


@st.composite
def calls(draw: Draw, *, trains: bool = False) -> Call:
    """A call in which everything is right."""
    layer = draw(layers(trains=trains))
    form = pick(draw, ["one", "batch", "batch", "packed"])
    T, B = draw(st.integers(0, 6)), 1 if form == "one" else draw(st.integers(0, 4))
    steps = np.full(B, T)
    arguments: dict[str, Any] = {}
    if form == "packed" or (form == "batch" and draw(st.booleans())):
        steps = np.array([draw(st.integers(0, T)) for _ in range(B)], np.intp)
        if form == "packed":
            offsets = np.concatenate([[0], np.cumsum(steps)]).astype(np.intp)
            arguments["offsets"] = integers_as(draw, offsets)
        else:
            arguments["lengths"] = integers_as(draw, steps)
    call = Call(layer, arguments, steps, T, form)
    arguments["x"] = draw(reals((*call.outer, layer.input_size)))
    if draw(st.integers(0, 3)) == 0:
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        resets = rng.random(call.outer) < 0.4
        forms = [resets, resets.tolist(), np.asfortranarray(resets), resets.repeat(2, -1)[..., ::2]]
        arguments["resets"] = pick(draw, forms if resets.size else forms[:1])
    if draw(st.booleans()):
        state = tuple(draw(reals(shape)) for shape in call.state_shapes)
        arguments["state"] = pick(draw, [state, list(state)])
    return call


def pair(call: Call) -> bool:
    """Whether y is two arrays."""
    return call.layer.num_directions == 2 and call.layer.merge_mode is None


def flat(result: Any) -> list[np.ndarray]:
    """[y, h_n, c_n] of a call, or two of y."""
    y, (h_n, c_n) = result[:2]
    return [*(y if isinstance(y, tuple) else (y,)), h_n, c_n]


def assert_all_same_bits(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(got, expected, strict=True):
        assert_same_bits(np.asarray(a), b)


def assert_near(got: np.ndarray, expected: np.ndarray, rough: np.ndarray) -> None:
    """Near what is expected; ``rough`` is what becomes of that by rounding: see `of_reference`."""
    assert got.shape == expected.shape == rough.shape
    own = 100 * float(np.finfo(got.dtype).eps) * (1 + np.abs(expected).max(initial=0))
    limit = own + 100 * np.abs(rough - expected).max(initial=0)
    assert (np.abs(got - expected) <= limit).all(), (np.abs(got - expected).max(), limit)


def of_reference(call: Call, dtype: Any) -> dict[str, Any]:
    """A call's arguments for the reference, which is to compute in a dtype.

    If that is the layer's own and not a wider one, x and states are off by roundings. Layer
    normalisation makes much of them where all units are equal, as they are without input, state and
    biases: it divides by the square root of 1e-5, step by step.
    """
    layer, values = call.layer, call.plain()
    eps = float(np.finfo(dtype).eps) if dtype == layer.dtype else 0.0

    def off(array: np.ndarray) -> np.ndarray:
        return array + eps * np.random.default_rng(0).normal(size=array.shape)

    state = [off(a) for a in values.get("state") or map(np.zeros, call.state_shapes)]
    if call.form == "one":
        state = [a[:, np.newaxis] for a in state]
    given: dict[str, Any] = {
        "x": off(call.padded(values["x"])),
        "state": state,
        "parameters": layer.state_dict(),
        "num_layers": layer.num_layers,
        "num_directions": layer.num_directions,
        "reverse": layer.reverse,
        "cell": layer.cell,
        "dtype": dtype,
    }
    if "lengths" in values or "offsets" in values:
        given["lengths"] = call.steps
    if "resets" in values:
        given["resets"] = call.padded(values["resets"])
    return given


def merged(layer: Any, both: np.ndarray) -> Any:
    """What the last layer's directions (..., D*P) make."""
    if layer.merge_mode == "concat" or layer.num_directions == 1:
        return both
    forward, reverse = np.split(both, 2, -1)
    return {
        None: (forward, reverse),
        "sum": forward + reverse,
        "mean": (forward + reverse) / 2,
        "product": forward * reverse,
    }[layer.merge_mode]


@trials(250)
@given(calls(), st.data())
def test_good_calls(call: Call, data: Any) -> None:
    tried["good calls"] += 1
    layer = call.layer
    out = None
    if not pair(call) and data.draw(st.booleans()):
        out = pick(data.draw, TARGETS)(values_of(call.y_shape, layer.dtype, 7))
    result = layer(out=out, **call.arguments)
    if out is not None:
        assert result[0] is out
    values = call.plain()
    assert_all_same_bits(flat(result), flat(layer(**values)))

    expected, rough = (flat(run_reference(call, dtype)) for dtype in (np.longdouble, layer.dtype))
    for arrays in zip(flat(result), expected, rough, strict=True):
        assert_near(*arrays)


def run_reference(call: Call, dtype: Any) -> Any:
    """What the reference says of a call: y and the final states."""
    layer = call.layer
    both, (h_n, c_n) = reference.forward(**of_reference(call, dtype))
    if not layer.return_sequences:
        last = h_n[-layer.num_directions :]
        both = np.concatenate(list(last), -1)
        both = both if call.form != "one" else both[0]
    else:
        both = call.unpadded(both)
    y = merged(layer, both)
    states = (h_n, c_n) if call.form != "one" else (h_n[:, 0], c_n[:, 0])
    return y, states


Bad = tuple[dict[str, Any], str]


@st.composite
def bad_calls(draw: Draw, call: Call) -> Bad:
    """The arguments with one thing wrong, and the name by which the error begins."""
    good, form, T = dict(call.arguments), call.form, call.T
    B = len(call.steps)
    x_shape = (*call.outer, call.layer.input_size)
    choices = ["x", "x", "state", "h_0", "c_0", "lengths", "offsets", "resets"]
    name = pick(draw, choices)
    if name == "x":
        outer = draw(st.lists(st.integers(0, 3), max_size=4))
        # Another T or B alone is no mistake, nor is leaving out the batch; another I always is.
        of_other_shape = np.zeros((*outer, x_shape[-1] + draw(st.sampled_from([-1, 1, 7]))))
        wrong = draw(st.one_of(not_real(x_shape), st.just(of_other_shape)))
        return good | {"x": wrong}, "x: "
    if name == "state":
        h = np.zeros(call.state_shapes[0])
        wrongs = ["hc", 3, {"h": h}, h, iter([h, h]), (), (h,), [h, h, h], object(), h.tobytes()]
        return good | {"state": pick(draw, wrongs)}, "state: "
    if name in ("h_0", "c_0"):
        pair: list[Any] = [np.zeros(shape) for shape in call.state_shapes]
        k = int(name == "c_0")
        pair[k] = draw(st.one_of(not_real(pair[k].shape), wrong_shape(pair[k].shape)))
        return good | {"state": tuple(pair)}, f"{name}: "
    if name == "lengths":
        if form == "one":
            return good | {"lengths": [T]}, "lengths: "
        if form == "packed":
            return good | {"lengths": call.steps}, "lengths, offsets: "
        wrongs = [
            np.full(B + 1, T),
            np.full((B, 1), T),
            T,
            "lengths",
            {"a": 1},
            np.ma.array(np.full(B, T)),
            HasNothing(),
        ]
        if B:
            wrongs += [
                np.full(B, T + 1),
                [-1] * B,
                [2**62] * B,
                [2**63] * B,
                [2**64] * B,
                [-(2**63)] * B,
                np.full(B, T).astype("datetime64[s]"),
                np.full(B, T, float),
                np.full(B, True),
                [None] * B,
                np.full(B, T, object),
                np.full(B, str(T)),
                [[T], [T, T]] if B == 2 else [[T]],
            ]
        return good | {"lengths": pick(draw, wrongs)}, "lengths: "
    if name == "offsets":
        N = call.outer[0]
        if form == "batch":
            return good | {"offsets": [0, N]}, "lengths, offsets: " if (
                "lengths" in good
            ) else "offsets: "
        wrongs = [
            [],
            [1, N],
            [0, N + 1],
            [-1, N],
            [0, N - 1],
            [[0, N]],
            N,
            [0, N + 1, N],
            [0, -1, N],
            [0, 2**62],
            [0, 2**63],
            [0, 2**64],
            [0.0, float(N)],
            [False, True],
            "0 1",
            np.ma.array([0, N]),
            np.array([0, N], object),
            HasNothing(),
            {0: N},
            [[0], [0, N]],
        ]
        return good | {"offsets": pick(draw, wrongs)}, "offsets: "
    right = np.zeros(call.outer, bool)
    wrongs = [
        right.astype(int),
        right.astype(float),
        right.astype(object),
        right.astype(str),
        right[np.newaxis],
        np.zeros((*right.shape[:-1], right.shape[-1] + 1), bool),
        np.ma.array(right),
        True,
        "resets",
        HasNothing(),
        {"a": True},
        [[True], [True, False]],
    ]
    return good | {"resets": pick(draw, wrongs)}, "resets: "


class HasNothing:
    """An array-like whose conversion fails, as a tensor on another device does."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise RuntimeError("lives elsewhere")


@trials(400)
@given(calls(), st.data())
def test_bad_calls(call: Call, data: Any) -> None:
    tried["bad calls"] += 1
    layer = call.layer
    arguments, name = data.draw(bad_calls(call))
    weights = layer._weights
    run = pick(data.draw, [layer.__call__, layer.record])
    rng = np.random.default_rng(3)
    drops = run == layer.record and layer.drops
    with pytest.raises((TypeError, ValueError)) as error:
        run(**arguments, **({"rng": rng} if drops else {}))
    assert str(error.value).startswith(name), (name, error.value)
    assert rng.bit_generator.state == np.random.default_rng(3).bit_generator.state
    assert layer._weights is weights


@trials(150)
@given(calls(), st.data())
def test_bad_out(call: Call, data: Any) -> None:
    tried["bad out"] += 1
    layer = call.layer
    y = values_of(call.y_shape, layer.dtype, 3)
    bad = bad_targets(y.copy())
    x = np.zeros((*call.outer, layer.input_size), layer.dtype)
    arguments = call.plain() | {"x": x}
    if y.nbytes and x.nbytes:
        memory = np.zeros(max(x.nbytes, y.nbytes), np.uint8)
        x = memory[: x.nbytes].view(layer.dtype).reshape(x.shape)
        arguments["x"] = pick(data.draw, [x, x[::-1], x.view(Subclass)])
        bad.append(memory[: y.nbytes].view(layer.dtype).reshape(y.shape))
    out = pick(data.draw, bad)
    if layer.num_directions == 2 and layer.merge_mode is None:
        out = y
    before = out.copy() if isinstance(out, np.ndarray) else None
    with pytest.raises((TypeError, ValueError), match=r"^out: "):
        layer(out=out, **arguments)
    if before is not None:
        assert_same_bits(np.array(out), np.array(before))


class Subclass(np.ndarray):
    pass


class Backward(NamedTuple):
    """Arguments of Tape.backward."""

    arguments: dict[str, Any]
    wanted: list[str]


def shapes_of(call: Call) -> dict[str, tuple[int, ...]]:
    """Of the gradients."""
    h, c = call.state_shapes
    x = (*call.outer, call.layer.input_size)
    return {"x": x, "h_0": h, "c_0": c, "params": call.layer.parameters.shape}


@st.composite
def backwards(draw: Draw, call: Call) -> Backward:
    """Arguments of Tape.backward, all right."""
    arguments: dict[str, Any] = {}
    wanted = list(Gradients._fields)
    if draw(st.integers(0, 4)):
        dy = [draw(reals(call.y_shape)) for _ in range(1 + pair(call))]
        arguments["dy"] = pick(draw, [tuple(dy), dy]) if pair(call) else dy[0]
    if draw(st.booleans()):
        some = [draw(st.one_of(st.none(), reals(shape))) for shape in call.state_shapes]
        arguments["dstate"] = pick(draw, [tuple(some), some])
    if draw(st.booleans()):
        wanted = draw(st.lists(st.sampled_from(wanted), min_size=1, unique=True))
        forms = [wanted, tuple(wanted), set(wanted), iter(wanted), np.array(wanted)]
        arguments["wrt"] = wanted[0] if len(wanted) == 1 else pick(draw, forms)
    return Backward(arguments, wanted)


def plain_backward(call: Call, back: Backward) -> dict[str, Any]:
    """The same arguments as plain arrays."""
    made: dict[str, Any] = {"wrt": back.wanted}
    for name, each in back.arguments.items():
        if name == "dstate" or (name == "dy" and pair(call)):
            made[name] = tuple(None if a is None else plain(a, call.layer.dtype) for a in each)
        elif name == "dy":
            made[name] = plain(each, call.layer.dtype)
    return made


@trials(200)
@given(calls(trains=True), st.data())
def test_good_backward(call: Call, data: Any) -> None:
    tried["good backward"] += 1
    layer = call.layer
    *result, tape = layer.record(**call.arguments)
    assert_all_same_bits(flat(result), flat(layer(**call.plain())))
    back = data.draw(backwards(call))
    as_plain = plain_backward(call, back)
    into, before = None, {}
    if data.draw(st.booleans()):
        chosen = data.draw(st.lists(st.sampled_from(back.wanted), unique=True))
        for name in chosen:
            before[name] = values_of(shapes_of(call)[name], layer.dtype, 5)
        into = Gradients(
            **{name: pick(data.draw, TARGETS)(array.copy()) for name, array in before.items()}
        )
    got = tape.backward(**back.arguments, into=into, keep=True)
    fresh = layer.record(**call.plain())[2].backward(**as_plain)
    for name, array in got._asdict().items():
        if name not in back.wanted:
            assert array is None
            continue
        alone = getattr(fresh, name)
        if name in before:
            assert array is getattr(into, name)
            assert_near(np.asarray(array), before[name] + alone, before[name] + alone)
        else:
            assert_same_bits(array, alone)
    if layer.num_directions == 1 or layer.merge_mode == "concat":
        exact = run_reference_backward(call, as_plain, np.longdouble)
        rough = run_reference_backward(call, as_plain, layer.dtype)
        for name, array in fresh._asdict().items():
            if array is not None:
                assert_near(array, exact[name], rough[name])


def run_reference_backward(
    call: Call, as_plain: dict[str, Any], dtype: Any
) -> dict[str, np.ndarray]:
    """What the reference says of a gradient."""
    layer, one = call.layer, call.form == "one"
    given = of_reference(call, dtype)
    dy = as_plain.get("dy")
    dstate: list[Any] = [
        None if a is None else (a[:, np.newaxis] if one else a)
        for a in as_plain.get("dstate") or (None, None)
    ]
    if dy is not None and layer.return_sequences:
        dy = call.padded(dy)
    elif dy is not None:
        h_shape = (call.state_shapes[0][0], len(call.steps), layer.output_size)
        dh_n = np.zeros(h_shape) if dstate[0] is None else dstate[0].astype(float)
        D = layer.num_directions
        for d, part in enumerate(np.split(dy, D, -1)):
            dh_n[h_shape[0] - D + d] += part.reshape(h_shape[1:])
        dy, dstate[0] = None, dh_n
    if dy is not None and call.steps.size:  # of padding there is none
        dy = dy * (np.arange(len(dy))[:, np.newaxis, np.newaxis] < call.steps[:, np.newaxis])
    dx, states, params = reference.backward(dy=dy, dstate=tuple(dstate), **given)
    return {
        "x": call.unpadded(dx),
        "h_0": states[0][:, 0] if one else states[0],
        "c_0": states[1][:, 0] if one else states[1],
        "params": np.concatenate([a.reshape(-1) for a in params.values()]),
    }


def bad_backward(draw: Draw, call: Call, tape: Tape) -> Bad:
    """Arguments of Tape.backward with one thing wrong, and how the error begins."""
    layer, shapes = call.layer, shapes_of(call)
    y = np.zeros(call.y_shape, layer.dtype)
    name = pick(draw, ["dy", "dh_n", "dc_n", "dstate", "wrt", "into", "into.", "keep"])
    if name == "dy":
        wrong = draw(st.one_of(not_real(y.shape), wrong_shape(y.shape)))
        if pair(call):
            k = draw(st.integers(0, 1))
            if wrong is None or draw(st.booleans()):
                return {"dy": [y, wrong] if k else [wrong, y]}, f"dy[{k}]: "
            return {"dy": pick(draw, [y, (y,), [y] * 3, "dy", 3])}, "dy: "
        return {"dy": "dy" if wrong is None else wrong}, "dy: "
    if name in ("dh_n", "dc_n"):
        k = int(name == "dc_n")
        some: list[Any] = [None, None]
        wrong = draw(st.one_of(not_real(call.state_shapes[k]), wrong_shape(call.state_shapes[k])))
        some[k] = "wrong" if wrong is None else wrong
        return {"dstate": some}, f"{name}: "
    if name == "dstate":
        return {"dstate": pick(draw, [3, "hc", y, {}, (), (None,), [None] * 3])}, name
    if name == "wrt":
        wrongs = ["y", "", [], (), 3, None, ["x", "y"], [["x"]], [3], {"x": 1, 2: 2}, b"x", [None]]
        return {"wrt": pick(draw, wrongs)}, name
    if name == "keep":
        return {"keep": pick(draw, [1, None, "yes", 0, np.ones(1, bool)])}, name
    if name == "into":
        return {"into": pick(draw, [3, (), tuple([None] * 4), y, {}])}, name
    field = pick(draw, Gradients._fields)
    array = np.zeros(shapes[field], layer.dtype)
    bad = bad_targets(array)
    if array.size:
        if field == "x" and tape._recording.layout is None:
            bad.append(tape._recording.inputs.x.reshape(array.shape))
        if field == "params":
            bad.append(layer.parameters)
    into = Gradients(**{field: pick(draw, bad)})
    if draw(st.integers(0, 9)) == 0:
        others = [other for other in Gradients._fields if other != field]
        return {"into": Gradients(**{field: array}), "wrt": others}, "into: "
    return {"into": into}, f"into.{field}: "


@trials(400)
@given(calls(trains=True), st.data())
def test_bad_backward(call: Call, data: Any) -> None:
    tried["bad backward"] += 1
    layer = call.layer
    *_, tape = layer.record(**call.plain())
    arguments, name = bad_backward(data.draw, call, tape)
    if isinstance(arguments.get("into"), Gradients) and "wrt" not in arguments:
        (target,) = [a for a in arguments["into"] if a is not None]
        before = np.array(target).copy() if isinstance(target, np.ndarray) else None
    else:
        target = before = None
    held = tape.nbytes
    with pytest.raises((TypeError, ValueError)) as error:
        tape.backward(**arguments)
    assert str(error.value).startswith(name), (name, error.value)
    assert tape.nbytes == held
    if before is not None:
        assert_same_bits(np.array(target), before)
    tape.backward()  # as good as before


@trials(60)
@given(layers(), st.data())
def test_bad_generators(layer: Any, data: Any) -> None:
    tried["bad generators"] += 1
    wrongs: list[Any] = [True, [], "x", 1.5, -1, [-1], {}, {1: 2}, object(), np.zeros(0, int),
                         np.array(3.0), b"seed", [None], 1j, np.nan, np.True_]  # fmt: skip
    x = np.zeros((3, layer.input_size))
    with pytest.raises((TypeError, ValueError), match=r"^rng: "):
        layer.record(x, rng=pick(data.draw, wrongs))
    if layer.drops:
        with pytest.raises(ValueError, match=r"^rng: missing"):
            layer.record(x)


def test_the_number_of_runs_is_what_it_says() -> None:
    """`FASTLSTM_BAD_INPUT` reaches hypothesis: nothing is skipped for being slow or rare."""
    run: Callable[[], None] = test_good_calls
    assert run._hypothesis_internal_use_settings.max_examples >= 250  # type: ignore[attr-defined]
