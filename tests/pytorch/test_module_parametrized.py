"""Parameters that are computed of others, or pruned, beside `torch.nn.LSTM`."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from support.optional import require

torch = require("torch")

from torch.nn.utils import parametrizations, parametrize, prune, remove_weight_norm  # noqa: E402
from torch.nn.utils import weight_norm as old_weight_norm  # noqa: E402

from support.torch_modules import flat, gradients, pair  # noqa: E402


class Symmetric(torch.nn.Module):
    """A square weight that is symmetric, as in PyTorch's tutorial."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the gates' blocks, each its lower triangle mirrored."""
        blocks = x.unflatten(0, (4, -1))
        return (blocks.tril() + blocks.tril(-1).mT).flatten(0, 1)


def old_norm(module: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        old_weight_norm(module, "weight_hh_l0")


CHANGES: dict[str, Callable[[Any], Any]] = {
    "parametrize": lambda m: parametrize.register_parametrization(
        m, "weight_hh_l0", Symmetric(), unsafe=True
    ),
    "weight_norm": lambda m: parametrizations.weight_norm(m, "weight_ih_l0"),
    "spectral_norm": lambda m: parametrizations.spectral_norm(m, "weight_hh_l1"),
    "old weight_norm": old_norm,
    "prune": lambda m: prune.random_unstructured(m, "weight_hh_l0", 0.5),
    "global prune": lambda m: prune.global_unstructured(
        [(m, "weight_hh_l0"), (m, "weight_ih_l1")], prune.L1Unstructured, amount=0.25
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changed_modules_give_the_same(change: Callable[[Any], Any]) -> None:
    theirs, ours = pair(4, 5, 2, dtype=torch.float64)
    for module in (theirs, ours):
        torch.manual_seed(1)
        change(module)
        module.eval()  # in training, spectral_norm goes on with its iteration at each call
    ours.load_state_dict(theirs.state_dict())
    names = [name for name, _ in theirs.named_parameters()]
    assert [name for name, _ in ours.named_parameters()] == names
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    for _ in range(2):
        expected, got = theirs(x), ours(x)
        for our, their in zip(flat(got), flat(expected), strict=True):
            torch.testing.assert_close(our, their, rtol=1e-11, atol=1e-13)
        our_gradients = gradients(got, list(ours.parameters()))
        for our, their in zip(
            our_gradients, gradients(expected, list(theirs.parameters())), strict=True
        ):
            torch.testing.assert_close(our, their, rtol=1e-9, atol=1e-12)
        with torch.no_grad():
            for our, their in zip(flat(ours(x)), flat(theirs(x)), strict=True):
                torch.testing.assert_close(our, their, rtol=1e-11, atol=1e-13)
            for module in (theirs, ours):  # and again with other numbers
                for parameter in module.parameters():
                    parameter.mul_(1.5)


def test_changes_can_be_undone() -> None:
    theirs, ours = pair(4, 5, dtype=torch.float64)
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    for module in (theirs, ours):
        parametrize.register_parametrization(module, "weight_hh_l0", Symmetric(), unsafe=True)
        parametrize.remove_parametrizations(module, "weight_hh_l0")
        old_norm(module)
        remove_weight_norm(module, "weight_hh_l0")
        prune.l1_unstructured(module, "weight_ih_l0", 0.5)
        prune.remove(module, "weight_ih_l0")
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for our, their in zip(flat(ours(x)), flat(theirs(x)), strict=True):
                torch.testing.assert_close(our, their, rtol=1e-11, atol=1e-13)


def test_functional_calls_take_other_parameters() -> None:
    theirs, ours = pair(4, 5, dtype=torch.float64)
    other = {name: 2 * value for name, value in theirs.named_parameters()}
    doubled = copy.deepcopy(theirs)
    doubled.load_state_dict(other)
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            before = flat(ours(x))
            got = flat(torch.func.functional_call(ours, other, (x,)))
            for our, their in zip(got, flat(doubled(x)), strict=True):
                torch.testing.assert_close(our, their, rtol=1e-11, atol=1e-13)
            assert all(torch.equal(a, b) for a, b in zip(flat(ours(x)), before, strict=True))
