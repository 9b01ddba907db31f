"""Derivatives of derivatives, and PyTorch's own checks of them by finite differences."""

from __future__ import annotations

from typing import Any

import pytest

from support.optional import require

torch = require("torch")

from torch.autograd import forward_ad, gradcheck, gradgradcheck  # noqa: E402

from support.torch_calls import LAYERS, Case, assert_close, case, loss_of  # noqa: E402

# Forward-mode differentiation in PyTorch 2.13 uses what it deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit"),
    pytest.mark.filterwarnings("ignore:Please use `torch.vmap`"),  # of 2.6
]

SMALL = (2, 2, 2, 2)


def small(layer: str, packed: bool = False) -> Case:
    options = dict(LAYERS[layer])
    if layer != "stacked":
        options.pop("num_layers", None)
    if layer == "projection":
        options["proj_size"] = 1
    if packed:
        return case(sizes=(2, 2, 3, 2), **options).with_sizes([2, 1])
    return case(sizes=SMALL, **options)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("layer", LAYERS)
def test_gradcheck(layer: str, packed: bool) -> None:
    given = small(layer, packed)
    assert gradcheck(given.ours, given.leaves, fast_mode=True, check_forward_ad=True)
    assert gradgradcheck(given.ours, given.leaves, fast_mode=True)


def test_gradcheck_of_every_number() -> None:
    given = case(sizes=(2, 1, 1, 1), num_directions=2)
    assert gradcheck(
        given.ours,
        given.leaves,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )
    first = tuple(
        leaf.requires_grad_(place in (0, 1, 3)) for place, leaf in enumerate(given.leaves)
    )
    assert gradgradcheck(given.ours, first, check_batched_grad=True, check_fwd_over_rev=True)


def second(function: Any, leaves: tuple[Any, ...]) -> list[Any]:
    """The gradients of a sum of squares of gradients."""
    first = torch.autograd.grad(loss_of(function)(*leaves), leaves, create_graph=True)
    return list(torch.autograd.grad(sum(g.square().sum() for g in first), leaves))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("layer", LAYERS)
def test_double_backward_is_that_of_pytorch(layer: str, packed: bool) -> None:
    given = small(layer, packed)
    assert_close(second(given.ours, given.leaves), second(given.theirs, given.leaves))


def test_a_gradient_penalty_trains_part_of_the_parameters() -> None:
    given = small("stacked")
    x, h_0, c_0, *parameters = (leaf.detach() for leaf in given.leaves)
    x.requires_grad_()
    parameters[1].requires_grad_()
    for function in (given.ours, given.theirs):
        loss = loss_of(function)(x, h_0, c_0, *parameters)
        (dx,) = torch.autograd.grad(loss, x, create_graph=True)
        parameters[1].grad = None
        dx.square().sum().backward()
        if function == given.ours:
            ours = parameters[1].grad
    assert all(parameter.grad is None for parameter in (*parameters[:1], *parameters[2:], h_0))
    assert_close(ours, parameters[1].grad)


def test_third_derivatives() -> None:
    given = case(sizes=SMALL)
    x = given.leaves[0]

    def third(function: Any) -> Any:
        found = loss_of(function)(*given.leaves)
        for _ in range(3):
            (found,) = torch.autograd.grad(found.sin().sum(), x, create_graph=True)
        return found

    assert_close(third(given.ours), third(given.theirs), 1e-11)


def test_what_has_a_graph_is_not_recorded_again() -> None:
    given = case(sizes=SMALL)
    y, _, _ = given.ours()
    (dx,) = torch.autograd.grad(y.sum(), given.leaves[:1], create_graph=True)
    assert dx.grad_fn is not None
    (dx,) = torch.autograd.grad(given.ours()[0].sum(), given.leaves[:1])
    assert dx.grad_fn is None


def test_forward_mode() -> None:
    given = small("bidirectional")
    leaves = [leaf.detach() for leaf in given.leaves]
    tangents = [leaf.cos() for leaf in leaves]
    for frozen in ([], [0, 3], list(range(1, len(leaves)))):
        with forward_ad.dual_level(), torch.no_grad():
            duals = [
                leaf if place in frozen else forward_ad.make_dual(leaf, tangent)
                for place, (leaf, tangent) in enumerate(zip(leaves, tangents, strict=True))
            ]
            found, expected = (
                [forward_ad.unpack_dual(out) for out in function(*duals)]
                for function in (given.ours, given.theirs)
            )
            for mine, theirs in zip(found, expected, strict=True):
                assert_close(mine.primal, theirs.primal)
                assert_close(mine.tangent, theirs.tangent)
