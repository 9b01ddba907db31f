"""The variants in the NumPy reference, against every other implementation that has some of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastlstm import reference
from fastlstm._parameters import parameter_shapes
from fastlstm._spec import Spec
from fastlstm.variants import NORM_EPSILON, Cell, Masks
from support.arrays import assert_close, relative_difference
from support.onnx_runtime import onnx_runtime
from support.optional import require
from support.paths import GOLDEN
from support.reference_cases import flat
from support.variant_cases import CHOICES, Problem, covering, name_of, problem

VARIANTS = GOLDEN / "variants"
CASES = covering(CHOICES)
NAMES = [f"{number}-{name_of(case)}" for number, case in enumerate(CASES)]

ALL = {
    "peepholes": True,
    "clip": 0.7,
    "cell_clip": 0.9,
    "layer_norm": True,
    "zoneout_h": "mask",
    "zoneout_c": "mask",
    "recurrent": True,
    "between": True,
    "proj_size": 3,
    "layers": (2, 2),
}


def forward(given: Problem, **options: Any) -> dict[str, np.ndarray]:
    """`reference.forward` with the results in a dict."""
    y, (h_n, c_n) = reference.forward(
        given.x, given.state, given.parameters, **given.options, **options
    )
    return {"y": y, "h_n": h_n, "c_n": c_n}


def backward(given: Problem, **options: Any) -> dict[str, np.ndarray]:
    """`reference.backward` with all gradients in a dict."""
    return flat(
        reference.backward(
            given.x,
            given.state,
            given.parameters,
            given.dy,
            given.dstate,
            **given.options,
            **options,
        )
    )


def inputs(given: Problem) -> dict[str, np.ndarray]:
    """Everything that there is a gradient by."""
    return {"x": given.x, "h_0": given.state[0], "c_0": given.state[1], **given.parameters}


def derivative(loss: Callable[[float], float]) -> float:
    """Derivative of `loss` at 0, from four points.

    They are so close to each other that, most likely, none is across a corner of an activation.
    """
    step = 1e-6
    near, far = loss(step) - loss(-step), loss(2 * step) - loss(-2 * step)
    return (8 * near - far) / (12 * step)


# PyTorch's operations


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_agrees_with_pytorch_operations(case: dict[str, Any]) -> None:
    require("torch")
    from support import torch_oracle

    given = problem(case, seed=CASES.index(case))
    arrays = (given.x, given.state, given.parameters, given.dy, given.dstate)
    results, gradients = torch_oracle.run_with_gradients(*arrays, **given.options)
    assert_close(forward(given), results, 1e-13)
    got = backward(given)
    assert list(got) == list(gradients)
    for name, expected in gradients.items():
        # At least 1: of a layer normalisation over one number some are 0 but for rounding.
        largest = max(1, np.abs(expected).max(initial=0))
        assert np.abs(got[name] - expected).max(initial=0) <= 1e-12 * largest, name


@pytest.mark.parametrize("D", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("H", "P", "L"), [(5, 3, 3), (7, 1, 1), (2, 1, 2)])
def test_projection_agrees_with_pytorch(H: int, P: int, L: int, bias: bool, D: int) -> None:
    torch = require("torch")
    given = problem({"proj_size": P, "bias": bias, "layers": (L, D), "sizes": (5, 3, 2, H)}, seed=P)
    module = torch.nn.LSTM(
        2, H, L, bias=bias, bidirectional=D == 2, proj_size=P, dtype=torch.float64
    )
    module.load_state_dict({name: torch.from_numpy(a) for name, a in given.parameters.items()})
    x, h_0, c_0 = leaves = [torch.from_numpy(a).requires_grad_() for a in (given.x, *given.state)]
    y, (h_n, c_n) = module(x, (h_0, c_0))
    found = torch.autograd.grad(
        (y, h_n, c_n),
        [*leaves, *(dict(module.named_parameters())[name] for name in given.parameters)],
        [torch.from_numpy(a) for a in (given.dy, *given.dstate)],
    )
    results = {"y": y, "h_n": h_n, "c_n": c_n}
    assert_close(forward(given), {k: v.detach().numpy() for k, v in results.items()}, 1e-13)
    expected = {k: v.numpy() for k, v in zip(inputs(given), found, strict=True)}
    assert_close(backward(given), expected, 1e-12)


def test_layer_norm_is_pytorchs() -> None:
    functional = require("torch.nn.functional")
    torch = require("torch")
    v = np.random.default_rng(3).normal(2, 3, (3, 7))
    v[1] = 0.25  # no variance at all
    expected = functional.layer_norm(torch.from_numpy(v), (7,), eps=NORM_EPSILON).numpy()
    got = reference.variant.normalise(v).hat
    np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-15)
    assert not got[1].any()


# ONNX Runtime


ONNX_ACTIVATIONS = {
    "sigmoid": ("Sigmoid", ()),
    "tanh": ("Tanh", ()),
    "relu": ("Relu", ()),
    "hard_sigmoid": ("HardSigmoid", (0.2, 0.5)),
    "identity": ("Affine", (1.0, 0.0)),
}
ONNX_CASES = covering(
    {
        "peepholes": (False, True),
        "coupled_gates": (False, True),
        "gate_activation": ("sigmoid", "hard_sigmoid"),
        "cell_activation": ("tanh", "relu", "identity"),
        "output_activation": ("tanh", "relu", "identity", "hard_sigmoid"),
        "bias": (True, False),
        "lengths": (False, True),
        "sizes": ((7, 3, 2, 5), (1, 1, 3, 1), (3, 2, 7, 17)),
        "layers": ((1, 1), (1, 2)),
    }
)


def onnx_attributes(cell: Cell, D: int) -> dict[str, Any]:
    """The attributes of a node that say the activations, those of every direction in turn."""
    three = (cell.gate_activation, cell.cell_activation, cell.output_activation)
    chosen = [ONNX_ACTIVATIONS[name] for name in three] * D
    attributes: dict[str, Any] = {
        "direction": "bidirectional" if D == 2 else "forward",
        "activations": [name for name, _ in chosen],
    }
    if any(numbers for _, numbers in chosen):
        attributes["activation_alpha"] = [numbers[0] for _, numbers in chosen if numbers]
        attributes["activation_beta"] = [numbers[1] for _, numbers in chosen if numbers]
    return attributes


@pytest.mark.parametrize("case", ONNX_CASES, ids=map(name_of, ONNX_CASES))
def test_agrees_with_onnx_runtime(case: dict[str, Any]) -> None:
    given = problem(case, seed=ONNX_CASES.index(case))
    if given.lengths is not None:  # ONNX Runtime gives h_n = c_n = 0 where it is 0
        given = given._replace(lengths=[max(n, 1) for n in given.lengths])
    attributes = onnx_attributes(given.cell, given.sizes.num_directions)
    assert_close(forward(given), onnx_runtime(given, attributes), 2e-6)


def test_reverse_alone_agrees_with_onnx_runtime() -> None:
    both = problem({"layers": (1, 2), "peepholes": True, "lengths": True}, seed=4)
    both = both._replace(lengths=[5, 1, 3])
    expected = {name: array[..., 5:] for name, array in forward(both).items() if name == "y"}
    expected |= {name: array[1:] for name, array in forward(both).items() if name != "y"}
    end = "_reverse"
    alone = both._replace(
        sizes=both.sizes._replace(num_directions=1),
        parameters={
            name.removesuffix(end): array
            for name, array in both.parameters.items()
            if name.endswith(end)
        },
        state=(both.state[0][1:], both.state[1][1:]),
        dy=both.dy[..., 5:],
    )
    assert_close(expected, onnx_runtime(alone, {"direction": "reverse"}), 2e-6)


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("peepholes", [False, True])
def test_clip_agrees_with_onnx_runtime(peepholes: bool, coupled: bool) -> None:
    """Where only the gates are clipped, and not what the output activation is given."""
    given = problem({"peepholes": peepholes, "coupled_gates": coupled, "clip": 0.9})
    given = given._replace(state=(given.state[0], np.clip(0.4 * given.state[1], -0.5, 0.5)))
    for t in range(6):
        state = reference.forward(given.x[:t], given.state, given.parameters, **given.options)[1]
        assert np.abs(state[1]).max() < 0.9
    unclipped = forward(given._replace(cell=given.cell._replace(clip=None)))
    assert relative_difference(forward(given)["y"], unclipped["y"]) > 0.1
    assert_close(forward(given), onnx_runtime(given, {}), 2e-6)


def test_what_onnx_runtime_clips() -> None:
    """It clips what the gates and g are given, but neither c_t nor what c_t's activation is given.

    The operator's text says of `clip` that it "is applied to the input of activations", and the
    activation of c_t is one; ONNX Runtime 1.32 and OpenVINO 2026.4 leave it out, and so do we. One
    unit, all sums 0, c_0 = 4, so that every gate is 1/2 and c_1 is 2; the peephole of o is 1.
    """
    sizes = Spec(1, 1, bias=False, cell=Cell(peepholes=True))
    zeros = {name: np.zeros(shape) for name, shape in parameter_shapes(sizes)}
    given = problem({"peepholes": True, "bias": False, "sizes": (1, 1, 1, 1), "clip": 0.5})
    given = given._replace(
        parameters={**zeros, "weight_co_l0": np.ones(1)},
        state=(np.zeros((1, 1, 1)), np.full((1, 1, 1), 4.0)),
    )
    theirs = onnx_runtime(given, {})
    o_t = 1 / (1 + np.exp(-0.5))  # the peephole's 2 was clipped, after it was added
    assert theirs["c_n"].item() == pytest.approx(2, rel=1e-6)
    assert theirs["h_n"].item() == pytest.approx(o_t * np.tanh(2), rel=1e-6)
    ours = forward(given)
    assert ours["c_n"].item() == 2
    assert ours["h_n"].item() == pytest.approx(o_t * np.tanh(2), rel=1e-15)


# Golden data


def load(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Arrays, parameters and gradients by parameters of a golden file."""
    with np.load(VARIANTS / f"{name}.npz", allow_pickle=False) as file:
        stored = {key: file[key] for key in file.files}
    parts = []
    for prefix in ("parameter.", "dparameter."):
        keys = [key for key in stored if key.startswith(prefix)]
        parts.append({key.removeprefix(prefix): stored.pop(key) for key in keys})
    return stored, parts[0], parts[1]


def test_golden_files_are_few_and_small() -> None:
    files = sorted(path.stem for path in VARIANTS.glob("*.npz"))
    haste = [f"haste_{case}" for case in ("plain", "zoneout_mask", "zoneout_rate")]
    assert files == [*haste, "keras_merge", "keras_recurrent_dropout"]
    assert sum(path.stat().st_size for path in VARIANTS.glob("*.npz")) < 100_000


@pytest.mark.parametrize("case", ["plain", "zoneout_rate", "zoneout_mask"])
def test_layer_norm_and_zoneout_agree_with_haste(case: str) -> None:
    stored, parameters, dparameters = load(f"haste_{case}")
    cell = Cell(layer_norm=True, zoneout_h=0.0 if case == "plain" else 0.3)
    masks = Masks(zoneout_h=stored.get("zoneout_h"))
    assert (masks.zoneout_h is not None) == (case == "zoneout_mask")
    x, state = stored["x"], (stored["h_0"], stored["c_0"])
    y, (h_n, c_n) = reference.forward(x, state, parameters, cell=cell, masks=masks)
    for name, array in (("y", y), ("h_n", h_n), ("c_n", c_n)):
        assert relative_difference(array, stored[name]) <= 1e-14
    dstate = (stored["dh_n"], stored["dc_n"])
    got = reference.backward(x, state, parameters, stored["dy"], dstate, cell=cell, masks=masks)
    expected = {name: stored[f"d{name}"] for name in ("x", "h_0", "c_0")}
    assert_close(flat(got), {**expected, **dparameters}, 1e-13)


def test_recurrent_dropout_agrees_with_keras() -> None:
    stored, parameters, _ = load("keras_recurrent_dropout")
    assert 0 < (stored["recurrent"] == 0).mean() < 1
    state, masks = (stored["h_0"], stored["c_0"]), Masks(recurrent=stored["recurrent"])
    y, (h_n, c_n) = reference.forward(stored["x"], state, parameters, num_directions=2, masks=masks)
    for name, array in (("y", y), ("h_n", h_n), ("c_n", c_n)):
        assert relative_difference(array, stored[name]) <= 1e-14


def test_two_directions_agree_with_keras() -> None:
    stored, parameters, _ = load("keras_merge")
    state = (stored["h_0"], stored["c_0"])
    y, (h_n, c_n) = reference.forward(stored["x"], state, parameters, num_directions=2)
    one, other = np.split(y, 2, axis=-1)
    merged = {"concat": y, "sum": one + other, "ave": (one + other) / 2, "mul": one * other}
    for mode, array in merged.items():
        assert relative_difference(array, stored[f"y_{mode}"]) <= 1e-14
    assert relative_difference(h_n, stored["h_n"]) <= 1e-14
    assert relative_difference(c_n, stored["c_n"]) <= 1e-14


# Finite differences


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_cell_agrees_with_finite_differences(case: dict[str, Any]) -> None:
    """Every gradient by every number."""
    B, I, H = 2, 2, 3
    given = problem({**case, "sizes": (1, B, I, H), "layers": (1, 1), "lengths": False}, seed=3)
    cell, masks = given.cell, reference.stack._masks_of_row(given.masks, 0)
    masks = reference.layer._masks_at(masks, 0)
    weights = reference.stack.weights_of(given.parameters, 0, 0)
    arrays = {"x_t": given.x[0], "h": given.state[0][0], "c": given.state[1][0]}
    arrays |= {name: array for name, array in weights._asdict().items() if array is not None}
    dh_t, dc_t = given.dstate[0][0], given.dstate[1][0]

    def call(function: Callable[..., Any], *gradients: np.ndarray) -> Any:
        own = dict(arrays)
        x_t, h, c = (own.pop(name) for name in ("x_t", "h", "c"))
        return function(x_t, h, c, reference.Weights(**own), *gradients, cell, masks)

    dx_t, dh, dc, dweights = call(reference.variant_cell_backward, dh_t, dc_t)
    got = {"x_t": dx_t, "h": dh, "c": dc, **dweights._asdict()}
    if not given.sizes.bias:
        arrays["b"] = np.zeros(len(weights.W))
    assert {name for name, gradient in got.items() if gradient is not None} == set(arrays)
    for name, array in arrays.items():
        expected = np.empty_like(array)
        for index in np.ndindex(array.shape):
            value = array[index]

            def loss(
                step: float,
                array: np.ndarray = array,
                index: tuple[int, ...] = index,
                value: float = value,
            ) -> float:
                array[index] = value + step
                h_t, c_t = call(reference.variant_cell)
                return float((dh_t * h_t).sum() + (dc_t * c_t).sum())

            expected[index] = derivative(loss)
            array[index] = value
        np.testing.assert_allclose(got[name], expected, rtol=1e-8, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_stack_agrees_with_finite_differences(case: dict[str, Any]) -> None:
    """The derivative along a few random directions, in which all inputs and parameters move."""
    given = problem(case, seed=CASES.index(case))
    arrays, gradients = inputs(given), backward(given)
    rng = np.random.default_rng(17)
    for _ in range(3):
        towards = {name: rng.normal(size=array.shape) for name, array in arrays.items()}

        def loss(step: float, towards: dict[str, np.ndarray] = towards) -> float:
            moved = {name: array + step * towards[name] for name, array in arrays.items()}
            x, state = moved.pop("x"), (moved.pop("h_0"), moved.pop("c_0"))
            results = forward(given._replace(x=x, state=state, parameters=moved))
            outputs = zip(results.values(), (given.dy, *given.dstate), strict=True)
            return float(sum((output * gradient).sum() for output, gradient in outputs))

        terms = {name: (gradients[name] * towards[name]).sum() for name in arrays}
        largest = max(abs(term) for term in terms.values())
        assert abs(sum(terms.values()) - derivative(loss)) <= 1e-8 * largest


# Against itself


def test_defaults_are_the_usual_cell_to_the_bit() -> None:
    given = problem({"sizes": (1, 3, 2, 5)})
    p = given.parameters
    x_t, h, c, dh_t, dc_t = (given.x[0], *(a[0] for a in (*given.state, *given.dstate)))
    for b in (p["bias_ih_l0"], None):
        usual = (p["weight_ih_l0"], p["weight_hh_l0"], b)
        expected = reference.lstm_cell(x_t, h, c, *usual)
        got = reference.variant_cell(x_t, h, c, reference.Weights(*usual))
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        gradients = reference.lstm_cell_backward(x_t, h, c, *usual, dh_t, dc_t)
        dx_t, dh, dc, dweights = reference.variant_cell_backward(
            x_t, h, c, reference.Weights(*usual), dh_t, dc_t
        )
        for one, other in zip((dx_t, dh, dc, *dweights[:3]), gradients, strict=True):
            np.testing.assert_array_equal(one, other)
        assert dweights[3:] == (None,) * 8


def test_options_of_no_effect_change_nothing() -> None:
    given = problem({"layers": (2, 2)})
    T, B, H, rows = 5, 3, 5, 4
    expected = forward(given)
    cells = [Cell(clip=1e6), Cell(cell_clip=1e6)]
    for cell in cells:
        assert_close(forward(given._replace(cell=cell)), expected, 0)
    masks = Masks(
        np.ones((rows, B, H)),
        np.ones((1, T, B, 2 * H)),
        np.zeros((rows, T, B, H)),
        np.zeros((rows, T, B, H)),
    )
    rates = Cell(zoneout_h=0.5, zoneout_c=0.5)  # masks come before rates
    assert_close(forward(given._replace(cell=rates, masks=masks)), expected, 0)
    peepholes = {
        name: np.zeros(shape)
        for name, shape in parameter_shapes(given.sizes._replace(cell=Cell(peepholes=True)))
        if "_c" in name
    }
    seeing = given._replace(cell=Cell(peepholes=True), parameters={**given.parameters, **peepholes})
    assert_close(forward(seeing), expected, 0)


def test_an_identity_projects_to_the_same() -> None:
    given = problem({"layers": (2, 2)})
    ends = ("l0", "l0_reverse", "l1", "l1_reverse")
    eyes = {f"weight_hr_{end}": np.eye(5) for end in ends}
    projected = given._replace(parameters={**given.parameters, **eyes})
    assert_close(forward(projected), forward(given), 0)


def test_zoneout_of_everything_keeps_the_state() -> None:
    given = problem({**ALL, "zoneout_h": 0.0, "zoneout_c": 0.0})
    got = forward(given._replace(cell=given.cell._replace(zoneout_h=1.0, zoneout_c=1.0)))
    np.testing.assert_array_equal(got["h_n"], given.state[0])
    np.testing.assert_array_equal(got["c_n"], given.state[1])


def test_each_option_and_mask_has_an_effect() -> None:
    """None of them is forgotten on the way down."""
    for name, choices in CHOICES.items():
        if name in ("sizes", "layers", "lengths", "proj_size", "bias", "coupled_gates"):
            continue
        base = {"layers": (2, 2), "peepholes": True, "layer_norm": name == "layer_norm"}
        given = problem({**base, name: choices[-1]}, seed=1)
        without = problem({**base, name: choices[0]}, seed=1)
        other = given._replace(cell=without.cell, masks=without.masks)
        if name in ("peepholes", "layer_norm"):  # which also have parameters
            left = dict(parameter_shapes(without.sizes))
            other = other._replace(
                parameters={key: array for key, array in given.parameters.items() if key in left}
            )
        assert relative_difference(forward(given)["y"], forward(other)["y"]) > 1e-3, name


def test_bounds_hold_and_pass_no_gradient() -> None:
    x, state = np.zeros((1, 1, 1)), (np.zeros((1, 1, 1)), np.full((1, 1, 1), 3.0))
    parameters = {"weight_ih_l0": np.ones((4, 1)), "weight_hh_l0": np.ones((4, 1))}
    cell = Cell(cell_clip=1.0)
    one = np.ones((1, 1, 1))
    _, (_, c_n) = reference.forward(x, state, parameters, cell=cell)
    assert c_n.item() == 1.0
    _, (_, dc_0), _ = reference.backward(x, state, parameters, None, (None, one), cell=cell)
    assert dc_0.item() == 0.0
    # On the bound itself the gradient is whole: f_t is 1/2 and c_0 is 2.
    on_it = (state[0], np.full((1, 1, 1), 2.0))
    _, (_, dc_0), _ = reference.backward(x, on_it, parameters, None, (None, one), cell=cell)
    assert dc_0.item() == 0.5


def test_two_chunks_with_the_state_handed_over_equal_the_whole() -> None:
    given = problem({**ALL, "layers": (2, 1)})
    recurrent, between, zoneout_h, zoneout_c = given.masks

    def part(times: slice, state: Any) -> Any:
        masks = Masks(recurrent, between[:, times], zoneout_h[:, times], zoneout_c[:, times])
        options = {**given.options, "masks": masks}
        return reference.forward(given.x[times], state, given.parameters, **options)

    first, middle = part(slice(0, 2), given.state)
    second, (h_n, c_n) = part(slice(2, None), middle)
    got = {"y": np.concatenate([first, second]), "h_n": h_n, "c_n": c_n}
    assert_close(got, forward(given), 0)


@pytest.mark.parametrize(("T", "B"), [(0, 3), (4, 0)])
def test_empty_time_and_empty_batch(T: int, B: int) -> None:
    given = problem({**ALL, "sizes": (T, B, 2, 5)})
    got = forward(given)
    assert got["y"].shape == (T, B, 6)
    np.testing.assert_array_equal(got["h_n"], given.state[0])
    np.testing.assert_array_equal(got["c_n"], given.state[1])
    gradients = backward(given)
    np.testing.assert_array_equal(gradients["h_0"], given.dstate[0])
    np.testing.assert_array_equal(gradients["c_0"], given.dstate[1])
    for name, array in given.parameters.items():
        np.testing.assert_array_equal(gradients[name], np.zeros_like(array))


@pytest.mark.parametrize("lengths", [None, [2, 0, 5]])
def test_arguments_are_left_alone(lengths: list[int] | None) -> None:
    given = problem(ALL)._replace(lengths=lengths)
    masks = [mask for mask in given.masks if mask is not None]
    arrays = [*inputs(given).values(), given.dy, *given.dstate, *masks]
    before = [array.copy() for array in arrays]
    for result in (*forward(given).values(), *backward(given).values()):
        result += 1
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("case", CASES[::3], ids=NAMES[::3])
def test_float32_stays_float32_and_close(case: dict[str, Any]) -> None:
    given = problem({**case, "sizes": (5, 3, 2, 5)})
    for run in (forward, backward):
        got = run(given, dtype=np.float32)
        assert all(array.dtype == np.float32 for array in got.values())
        assert_close(got, run(given), 1e-4)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_cell_computes_in_the_precision_it_is_given(case: dict[str, Any]) -> None:
    given = problem({**case, "layers": (1, 1), "lengths": False})
    masks = reference.layer._masks_at(reference.stack._masks_of_row(given.masks, 0), 0)
    masks = Masks(*(None if mask is None else mask.astype(np.float32) for mask in masks))
    arrays = {name: array.astype(np.float32) for name, array in given.parameters.items()}
    weights = reference.stack.weights_of(arrays, 0, 0)
    x_t, h, c, dh_t, dc_t = (
        array[0].astype(np.float32) for array in (given.x, *given.state, *given.dstate)
    )
    states = reference.variant_cell(x_t, h, c, weights, given.cell, masks)
    *gradients, dweights = reference.variant_cell_backward(
        x_t, h, c, weights, dh_t, dc_t, given.cell, masks
    )
    for array in (*states, *gradients, *dweights):
        assert array is None or array.dtype == np.float32


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_stay_within_their_sequence(value: float) -> None:
    for options in (ALL, {"gate_activation": "hard_sigmoid", "cell_activation": "relu"}):
        given = problem(options)
        clean, clean_gradients = forward(given), backward(given)
        given.x[1, 0, 1] = value
        got, gradients = forward(given), backward(given)
        for name in got:
            np.testing.assert_array_equal(got[name][:, 1:], clean[name][:, 1:])
        for name in ("x", "h_0", "c_0"):
            np.testing.assert_array_equal(gradients[name][:, 1:], clean_gradients[name][:, 1:])
        if np.isnan(value):
            assert np.isnan(got["y"][:, 0]).any()


# Bad arguments


def test_bad_arguments_are_named() -> None:
    given = problem({**ALL, "layers": (2, 1)})
    x, state, p = given.x, given.state, given.parameters

    def refused(error: type[Exception], words: str, **changed: Any) -> None:
        arguments = {"x": x, "state": state, "parameters": p, **given.options, **changed}
        with pytest.raises(error, match=words):
            reference.forward(**arguments)
        with pytest.raises(error, match=words):
            reference.backward(**arguments, dy=None)

    refused(TypeError, "^cell: got dict, expected a Cell", cell={})
    refused(ValueError, "^gate_activation: ", cell=given.cell._replace(gate_activation="elu"))
    refused(ValueError, "^clip: ", cell=given.cell._replace(clip=-1.0))
    refused(TypeError, "^masks: got tuple, expected Masks", masks=(None,) * 4)
    for name in Masks._fields:
        short = given.masks._replace(**{name: np.ones((2, 3))})
        refused(ValueError, f"^masks: {name}: got shape", masks=short)
        texts = given.masks._replace(**{name: getattr(given.masks, name).astype(str)})
        refused(TypeError, f"^masks: {name}: .*real numbers", masks=texts)
    refused(ValueError, r"^h_0: got shape \(2, 3, 5\), expected \(2, 3, 3\)", state=(state[1],) * 2)
    for name in ("weight_hr_l1", "weight_ci_l0", "weight_cf_l1", "scale_ih_l0", "shift_c_l1"):
        less = {key: array for key, array in p.items() if key != name}
        refused(ValueError, f"^parameters: missing {name}", parameters=less)
    refused(ValueError, "^parameters: .*unexpected", cell=given.cell._replace(layer_norm=False))
    refused(ValueError, "^parameters: ", cell=given.cell._replace(coupled_gates=True))
