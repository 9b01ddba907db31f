"""Backpropagation with every kind of input, good and bad, as `test_bad_input.py` has calls."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import Gradients, Tape, reference
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
from support.layer_calls import (
    Bad,
    Call,
    assert_all_same_bits,
    assert_near,
    calls,
    flat,
    of_reference,
    pair,
)


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
