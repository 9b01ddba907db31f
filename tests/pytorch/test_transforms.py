"""The transforms of `torch.func`, beside what `torch.nn.LSTM` does with them."""

from __future__ import annotations

from typing import Any

import pytest

from support.optional import require

torch = require("torch")

from torch.func import (  # noqa: E402
    functional_call,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    stack_module_state,
    vjp,
    vmap,
)

from fastlstm.torch import _plain  # noqa: E402
from fastlstm.torch._autograd import lstm  # noqa: E402
from support.torch_calls import LAYERS, Case, assert_close, case, loss_of, silenced  # noqa: E402

# Forward-mode differentiation in PyTorch 2.13 uses what it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")

V = 3


def leaves_of(given: Case) -> tuple[Any, ...]:
    return tuple(leaf.detach() for leaf in given.leaves)


def plain(given: Case) -> Any:
    """The same of PyTorch's operations, which transforms know as they do not know nn.LSTM's."""
    return lambda x, h_0, c_0, *parameters: _plain.lstm(
        x, h_0, c_0, parameters, batch_sizes=given.batch_sizes, spec=given.spec
    )


def theirs(given: Case) -> Any:
    """PyTorch's own LSTM, which no transform takes when it is packed."""
    return given.theirs if given.batch_sizes is None else plain(given)


@pytest.fixture(params=[False, True], ids=["plain", "packed"])
def given(request: pytest.FixtureRequest) -> Case:
    made = case(sizes=(3, 2, 3, 3), **LAYERS["projection"])
    return made.with_sizes([3, 2, 1]) if request.param else made


def numbers(leaves: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(range(len(leaves)))


def test_grad_and_vjp(given: Case) -> None:
    leaves = leaves_of(given)
    every = numbers(leaves)
    expected = torch.autograd.grad(loss_of(given.theirs)(*given.leaves), given.leaves)
    assert_close(grad(loss_of(given.ours), every)(*leaves), expected)
    assert_close(grad_and_value(loss_of(given.ours), every)(*leaves)[0], expected)
    (outputs, pull), (_, pull_theirs) = vjp(given.ours, *leaves), vjp(theirs(given), *leaves)
    assert_close(pull(outputs), pull_theirs(outputs))


def test_jvp(given: Case) -> None:
    leaves = leaves_of(given)
    tangents = tuple(leaf.cos() for leaf in leaves)
    assert_close(jvp(given.ours, leaves, tangents), jvp(theirs(given), leaves, tangents))


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
def test_jacobians(given: Case, jacobian: Any) -> None:
    leaves = leaves_of(given)
    found = jacobian(given.ours, (0, 1, 4))(*leaves)
    assert_close(found, jacrev(plain(given), (0, 1, 4))(*leaves))


@pytest.mark.parametrize(
    "derivative",
    [
        hessian,
        lambda function, by: jacrev(jacrev(function, by), by),
        lambda function, by: jacfwd(jacfwd(function, by), by),
        lambda function, by: jacrev(jacfwd(function, by), by),
    ],
    ids=["hessian", "reverse-reverse", "forward-forward", "reverse-forward"],
)
def test_hessians(given: Case, derivative: Any) -> None:
    leaves = leaves_of(given)
    found = derivative(loss_of(given.ours), (0, 6))(*leaves)
    assert_close(found, hessian(loss_of(theirs(given)), (0, 6))(*leaves))


def many(given: Case, places: dict[int, int]) -> tuple[tuple[Any, ...], tuple[int | None, ...]]:
    """Arguments of which those at the keys have an axis of V, at the values."""
    generator = torch.Generator().manual_seed(11)
    leaves = list(leaves_of(given))
    for place, dim in places.items():
        shape = (V, *leaves[place].shape)
        made = torch.randn(shape, generator=generator, dtype=leaves[place].dtype)
        leaves[place] = made.movedim(0, dim)
    return tuple(leaves), tuple(places.get(place) for place in numbers(tuple(leaves)))


PLACES = [{0: 0}, {0: 1, 1: 2}, {1: 0, 2: 0}, {3: 0}, {0: 0, 3: 1, 4: 0, 6: 0}]


@pytest.mark.parametrize("places", PLACES, ids=str)
def test_vmap(given: Case, places: dict[int, int]) -> None:
    leaves, dims = many(given, places)
    found = vmap(given.ours, dims)(*leaves)
    assert_close(found, vmap(plain(given), dims)(*leaves))
    each = [
        given.ours(*(a if d is None else a.select(d, k) for a, d in zip(leaves, dims, strict=True)))
        for k in range(V)
    ]
    assert_close(found, tuple(map(torch.stack, zip(*each, strict=True))), 0)


@pytest.mark.parametrize("places", PLACES, ids=str)
@pytest.mark.parametrize("by", [(0, 2), (0, 3, 6)], ids=["inputs", "parameters"])
def test_gradients_of_each_sample(given: Case, places: dict[int, int], by: tuple[int, ...]) -> None:
    leaves, dims = many(given, places)
    found = vmap(grad(loss_of(given.ours), by), dims)(*leaves)
    assert_close(found, vmap(grad(loss_of(plain(given)), by), dims)(*leaves))


def test_transforms_nest(given: Case) -> None:
    leaves, dims = many(given, {0: 0})

    def inner(function: Any) -> Any:
        def total(*arguments: Any) -> Any:
            return vmap(loss_of(function), dims)(*arguments).sum()

        return total

    ours, expected = inner(given.ours), inner(plain(given))
    assert_close(grad(ours, 3)(*leaves), grad(expected, 3)(*leaves))
    assert_close(
        vmap(hessian(loss_of(given.ours), 1), dims)(*leaves),
        vmap(hessian(loss_of(plain(given)), 1), dims)(*leaves),
    )
    twice = torch.stack([leaves[0], 2 * leaves[0]])
    outer = (0, *dims[1:])
    assert_close(
        vmap(vmap(given.ours, dims), outer)(twice, *leaves[1:]),
        vmap(vmap(plain(given), dims), outer)(twice, *leaves[1:]),
    )


def test_autograd_around_vmap(given: Case) -> None:
    leaves, dims = many(given, {0: 0})
    leaves = tuple(leaf.requires_grad_() for leaf in leaves)
    found, expected = (
        torch.autograd.grad(vmap(loss_of(function), dims)(*leaves).sum(), leaves)
        for function in (given.ours, plain(given))
    )
    assert_close(found, expected)


class Layer(torch.nn.Module):
    """A layer of one's own around the kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = case(torch.float64)
        names = [name for name, _ in self.inner.module.named_parameters()]
        self.own = torch.nn.ParameterDict(dict(zip(names, self.inner.leaves[3:], strict=True)))
        self.names = names

    def forward(self, x: Any) -> Any:
        state = x.new_zeros(1, x.shape[1], 3)
        parameters = [self.own[name] for name in self.names]
        return lstm(x, state, state, parameters, spec=self.inner.spec)[0]


def test_an_ensemble_of_modules() -> None:
    layers = [Layer() for _ in range(V)]
    for number, layer in enumerate(layers):
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(1 + number)
    parameters, buffers = stack_module_state(layers)  # type: ignore[arg-type]
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(4, 2, 3)

    def call(own: Any, shared: Any, rows: Any) -> Any:
        return functional_call(layers[0], (own, shared), (rows,))

    found = vmap(call, (0, 0, None))(parameters, buffers, x)
    assert_close(found, torch.stack([layer(x) for layer in layers]), 0)
    found.sum().backward()
    assert all(stacked.grad is not None for stacked in parameters.values())


def test_a_tensor_that_escaped_from_a_transform() -> None:
    inner = case()
    x, *others = leaves_of(inner)
    caught: list[Any] = []
    grad(lambda rows: (caught.append(rows), rows.sum())[1])(x)
    assert_close(inner.ours(caught[0], *others), inner.ours(x, *others), 0)


@pytest.mark.parametrize("transform", ["jvp", "hessian", "vmap", "vmap(grad)"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_pytorch_does(transform: str, dtype: str) -> None:
    """The table of docs: what the modules of PyTorch that the table was made with can't do."""
    if not torch.__version__.startswith("2.13."):
        pytest.skip("the table is of PyTorch 2.13")
    made = case(getattr(torch, dtype), **LAYERS["bidirectional"])
    leaves, dims = many(made, {0: 0})
    x = leaves[0][0]

    def run(function: Any) -> None:
        loss = loss_of(function)
        if transform == "jvp":
            jvp(lambda rows: function(rows, *leaves[1:]), (x,), (x,))
        elif transform == "hessian":
            hessian(lambda rows: loss(rows, *leaves[1:]))(x)
        elif transform == "vmap":
            vmap(function, dims)(*leaves)
        else:
            vmap(grad(loss, 3), dims)(*leaves)

    run(made.ours)
    fails = {"float32": ("jvp", "hessian", "vmap"), "float64": ("vmap", "vmap(grad)")}
    if transform in fails[dtype]:
        with silenced(), pytest.raises((RuntimeError, NotImplementedError)):
            run(made.theirs)
    else:
        run(made.theirs)
