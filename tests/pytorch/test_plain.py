"""The LSTM in PyTorch's operations, against the reference and `torch.nn.LSTM`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from fastlstm import reference
from fastlstm.variants import NO_MASKS, Masks
from support.arrays import relative_difference
from support.optional import require
from support.reference_cases import flat
from support.variant_cases import CHOICES, Problem, covering, name_of, problem

torch = require("torch")

from fastlstm.torch import _plain  # noqa: E402
from fastlstm.torch._spec import from_text, to_text  # noqa: E402

# A layer projects to fewer numbers than it has; the reference, which makes the cases, need not.
CASES = [
    case | {"proj_size": min(case["proj_size"], case["sizes"][-1] - 1)}
    for case in covering(CHOICES)
]
NAMES = [f"{number}-{name_of(case)}" for number, case in enumerate(CASES)]


def tensors(given: Problem) -> dict[str, torch.Tensor]:
    """Everything that there is a gradient by."""
    arrays = {"x": given.x, "h_0": given.state[0], "c_0": given.state[1], **given.parameters}
    return {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}


def packing(lengths: list[int], T: int) -> tuple[list[int], torch.Tensor, torch.Tensor]:
    """The order of sequences, the longest first, the sizes of batches, and the rows of steps."""
    order = sorted(range(len(lengths)), key=lambda b: -lengths[b])
    steps = [[b for b in order if lengths[b] > t] for t in range(T)]
    sizes = [len(step) for step in steps if step]
    rows = [t * len(lengths) + b for t, step in enumerate(steps) for b in step]
    return order, torch.tensor(sizes, dtype=torch.int64), torch.tensor(rows, dtype=torch.int64)


def run(given: Problem, leaves: Mapping[str, torch.Tensor], spec: str) -> list[torch.Tensor]:
    """`_plain.lstm` with the results (T, B, n), packed where sequences have lengths."""
    x, h_0, c_0, *parameters = leaves.values()
    T, B, _ = x.shape
    drawn = [None if mask is None else torch.tensor(mask) for mask in given.masks]
    if given.lengths is None:
        return list(_plain.lstm(x, h_0, c_0, parameters, masks=Masks(*drawn), spec=spec))
    order, sizes, rows = packing(given.lengths, T)
    places = np.argsort(order)
    taken = [None if mask is None else mask.flatten(1, 2)[:, rows] for mask in drawn[1:]]
    recurrent = None if drawn[0] is None else drawn[0][:, order]
    packed, h_n, c_n = _plain.lstm(
        x.flatten(0, 1)[rows],
        h_0[:, order],
        c_0[:, order],
        parameters,
        batch_sizes=sizes,
        masks=Masks(recurrent, *taken),
        spec=spec,
    )
    y = packed.new_zeros(T * B, packed.shape[-1]).index_copy(0, rows, packed).unflatten(0, (T, B))
    return [y, h_n[:, places], c_n[:, places]]


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_every_option_is_the_references(case: dict[str, Any]) -> None:
    given = problem(case)
    leaves = tensors(given)
    spec = to_text(given.sizes._replace(dtype=np.dtype(np.float64)))
    got = run(given, leaves, spec)
    y, (h_n, c_n) = reference.forward(given.x, given.state, given.parameters, **given.options)
    for ours, expected in zip(got, (y, h_n, c_n), strict=True):
        assert relative_difference(ours.detach().numpy(), expected) <= 1e-13

    expected_gradients = flat(
        reference.backward(
            given.x, given.state, given.parameters, given.dy, given.dstate, **given.options
        )
    )
    upstream = [torch.tensor(array) for array in (given.dy, *given.dstate)]
    gradients = torch.autograd.grad(
        got, list(leaves.values()), upstream, allow_unused=True, materialize_grads=True
    )
    for name, gradient in zip(leaves, gradients, strict=True):
        np.testing.assert_allclose(
            gradient.detach().numpy(),
            expected_gradients[name],
            rtol=1e-10,
            atol=1e-11,
            err_msg=name,
        )


@pytest.mark.parametrize("lengths", [False, True], ids=["", "lengths"])
def test_reverse_is_the_references(lengths: bool) -> None:
    given = problem(
        {"sizes": (4, 3, 2, 5), "layers": (2, 1), "lengths": lengths, "recurrent": True}
    )
    spec = to_text(given.sizes._replace(dtype=np.dtype(np.float64), reverse=True))
    got = run(given, tensors(given), spec)
    y, state = reference.forward(
        given.x, given.state, given.parameters, **given.options, reverse=True
    )
    for ours, expected in zip(got, (y, *state), strict=True):
        assert relative_difference(ours.detach().numpy(), expected) <= 1e-13


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize(("L", "D", "P"), [(1, 1, 0), (2, 2, 3)])
def test_is_the_modules_of_pytorch(L: int, D: int, P: int, packed: bool) -> None:
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(3, 5, L, bidirectional=D == 2, proj_size=P, dtype=torch.float64)
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    state = torch.randn(L * D, 4, P or 5).double(), torch.randn(L * D, 4, 5).double()
    spec = to_text(
        from_text(
            f'{{"num_directions": {D}, "input_size": 3, "hidden_size": 5, "num_layers": {L}, '
            f'"proj_size": {P}, "dtype": "float64"}}'
        )
    )
    if packed:
        pack = torch.nn.utils.rnn.pack_padded_sequence(x, [6, 4, 4, 1])
        y, (h_n, c_n) = theirs(pack, state)
        got = _plain.lstm(
            pack.data, *state, theirs._flat_weights, batch_sizes=pack.batch_sizes, spec=spec
        )
        expected = y.data, h_n, c_n
    else:
        y, (h_n, c_n) = theirs(x, state)
        got = _plain.lstm(x, *state, theirs._flat_weights, spec=spec)
        expected = y, h_n, c_n
    for ours, their in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, their, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
def test_no_steps_leave_the_states(reverse: bool) -> None:
    given = problem({"sizes": (4, 3, 2, 5), "layers": (2, 1)})
    spec = to_text(given.sizes._replace(dtype=np.dtype(np.float64), reverse=reverse))
    x, h_0, c_0, *parameters = tensors(given).values()
    y, h_n, c_n = _plain.lstm(x[:0], h_0, c_0, parameters, masks=NO_MASKS, spec=spec)
    assert y.shape == (0, 3, 5)
    assert torch.equal(h_n, h_0)
    assert torch.equal(c_n, c_0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`")  # PyTorch's own
@pytest.mark.parametrize(
    "case",
    [
        {"layers": (2, 2), "proj_size": 3, "between": True},
        {"peepholes": True, "layer_norm": True, "clip": 0.7, "cell_clip": 0.9, "zoneout_h": "mask"},
        {"coupled_gates": True, "gate_activation": "hard_sigmoid", "zoneout_c": 0.2},
    ],
    ids=name_of,
)
def test_has_second_derivatives_tangents_and_vmap(case: dict[str, Any]) -> None:
    given = problem({"sizes": (2, 2, 2, 4), **case})
    spec = to_text(given.sizes._replace(dtype=np.dtype(np.float64)))
    leaves = list(tensors(given).values())

    def function(*leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x, h_0, c_0, *parameters = leaves
        drawn = Masks(*(None if mask is None else torch.tensor(mask) for mask in given.masks))
        return _plain.lstm(x, h_0, c_0, parameters, masks=drawn, spec=spec)

    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)
    many = [torch.stack([leaf, leaf * 0.5]).detach() for leaf in leaves]
    together = torch.vmap(function)(*many)
    for k in range(2):
        alone = function(*(leaf[k] for leaf in many))
        for whole, part in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[k], part, rtol=1e-12, atol=1e-14)


def test_options_survive_being_text() -> None:
    given = problem({"peepholes": True, "clip": 0.7, "layers": (2, 2), "proj_size": 3})
    assert from_text(to_text(given.sizes)) == given.sizes
    with pytest.raises(ValueError, match=r"hidden_size: got 0"):
        from_text('{"num_directions": 1, "input_size": 3, "hidden_size": 0}')
