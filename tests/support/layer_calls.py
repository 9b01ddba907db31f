"""Layers of any options and calls of them, for hypothesis, and how to compare their results."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from fastlstm import _core
from fastlstm.variants import ACTIVATIONS
from support.arrays import assert_same_bits
from support.bad_input import Draw, pick, plain, reals
from support.layers import layer_class

#: Arguments with one thing wrong, and how the error about it begins.
Bad = tuple[dict[str, Any], str]


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
