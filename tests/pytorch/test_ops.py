"""The operations by themselves: what they return, and what PyTorch asks of operations."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastlstm.variants import Masks
from support.optional import require

torch = require("torch")

from fastlstm.torch import LSTM, _autograd, _ops  # noqa: E402
from support.torch_calls import LAYERS, Case, assert_close, case  # noqa: E402

OPS = torch.ops.fastlstm
NOTHING = (None,) * 4  # masks


def arguments(given: Case, requires_grad: bool = False) -> list[Any]:
    """What `forward` and `record` are given, apart from the spec."""
    x, h_0, c_0, *parameters = (leaf.detach().clone() for leaf in given.leaves)
    vector = torch.cat([parameter.flatten() for parameter in parameters])
    tensors = [tensor.requires_grad_(requires_grad) for tensor in (x, h_0, c_0, vector)]
    return [*tensors, given.batch_sizes, *NOTHING]


@pytest.fixture(params=[False, True], ids=["plain", "packed"])
def given(request: pytest.FixtureRequest) -> Case:
    made = case(sizes=(3, 2, 3, 3), **LAYERS["projection"])
    return made.with_sizes([3, 2, 1]) if request.param else made


def test_they_return_what_the_function_does(given: Case) -> None:
    taken, spec = arguments(given), given.spec
    y, h_n, c_n = OPS.forward(*taken, spec)
    assert_close((y, h_n, c_n), given.theirs())
    *results, tape = OPS.record(*taken, spec)
    assert_close(results, [y, h_n, c_n], 0)
    assert tape.shape == (4, *given.leaves[0].shape[:-1], 5 * 3 + 2)
    seeds = [torch.ones_like(out) for out in (y, h_n, c_n)]
    wanted = [True, False, True, True]
    dx, dh_0, dc_0, dparameters = OPS.backward(*taken, tape, *seeds, wanted, spec)
    expected = torch.autograd.grad(given.theirs(), given.leaves, seeds)
    assert dh_0.shape == (0,)
    assert_close((dx, dc_0), (expected[0], expected[2]))
    assert_close(dparameters, torch.cat([part.flatten() for part in expected[3:]]))
    assert [part.shape for part in OPS.backward(*taken, tape, *[None] * 3, [False] * 4, spec)] == [
        (0,)
    ] * 4


@pytest.mark.parametrize(
    "requires_grad", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["frozen", "trained"]
)
def test_pytorch_finds_nothing_wrong(given: Case, requires_grad: bool) -> None:
    taken, spec = arguments(given, requires_grad), given.spec
    y, h_n, c_n, tape = (out.detach() for out in OPS.record(*taken, spec))
    # Gradients of gradients of packed sequences need to know their sizes: they can't be traced.
    again = requires_grad and given.batch_sizes is None
    seeds = (y.requires_grad_(again), None, c_n.requires_grad_(again))
    whole = taken if again else arguments(given)
    backward = (*whole, tape, *seeds, [True, True, False, True], spec)
    for operation, given_ in (
        (OPS.forward, (*taken, spec)),
        (OPS.record, (*taken, spec)),
        (OPS.backward, backward),
    ):
        found = torch.library.opcheck(operation.default, given_)
        assert set(found.values()) == {"SUCCESS"}
        assert len(found) == 4
    assert h_n.shape == given.leaves[1].shape


def test_they_are_differentiable_where_a_program_calls_them(given: Case) -> None:
    taken = arguments(given, requires_grad=True)
    loss = sum(out.sum() for out in OPS.forward(*taken, given.spec))
    expected = torch.autograd.grad(sum(out.sum() for out in given.theirs()), given.leaves)
    found = torch.autograd.grad(loss, taken[:4], create_graph=True)
    assert_close(found[:3], expected[:3])
    assert_close(found[3], torch.cat([part.flatten() for part in expected[3:]]))
    (again,) = torch.autograd.grad(found[3].square().sum(), taken[0])
    assert again.shape == taken[0].shape


def test_transforms_take_them(given: Case) -> None:
    taken = arguments(given)

    def total(x: Any, vector: Any) -> Any:
        return OPS.forward(x, *taken[1:3], vector, *taken[4:], given.spec)[0].sum()

    many = torch.stack([taken[0], 2 * taken[0]])
    found = torch.func.vmap(total, (0, None))(many, taken[3])
    assert_close(found, torch.stack([total(x, taken[3]) for x in many]))
    tape = OPS.record(*taken, given.spec)[3]
    seed = torch.ones_like(OPS.forward(*taken, given.spec)[0])

    def pulled(x: Any, wanted: list[bool]) -> Any:
        return OPS.backward(x, *taken[1:], tape, seed, None, None, wanted, given.spec)

    for wanted in ([True, False, True, False], [False, True, False, True]):
        each = [pulled(x, wanted) for x in many]
        found = torch.func.vmap(lambda x, w=wanted: pulled(x, w))(many)
        assert_close(found, tuple(map(torch.stack, zip(*each, strict=True))))
    dx, dparameters = torch.func.grad(total, (0, 1))(taken[0], taken[3])
    expected = torch.autograd.grad(given.theirs()[0].sum(), given.leaves)
    assert_close(dx, expected[0])
    assert_close(dparameters, torch.cat([part.flatten() for part in expected[3:]]))


def test_eager_calls_come_to_the_same() -> None:
    """`lstm` passes the dispatcher by: the bits are those of the operations."""
    given = case()
    taken = arguments(given)
    assert_close(_ops.record(*taken, given.spec), OPS.record(*taken, given.spec), 0)
    tape = OPS.record(*taken, given.spec)[3]
    seeds = [torch.ones(4, 2, 3).double(), None, None]
    both = [
        function(*taken, tape, *seeds, [True] * 4, given.spec)
        for function in (_ops.backward, OPS.backward)
    ]
    assert_close(list(both[0]), list(both[1]), 0)


def test_threads_of_a_model_may_differ() -> None:
    """A model is packed at each call: a tape goes with any other of its spec."""
    given = case()
    taken, other = arguments(given), case(sizes=(7, 5, 3, 3))
    *_, tape = OPS.record(*taken, given.spec)
    _ops.program_of(given.spec).kept = None
    seeds = [torch.ones(4, 2, 3).double(), None, None]
    first = OPS.backward(*taken, tape, *seeds, [True] * 4, given.spec)
    other.ours()
    assert_close(OPS.backward(*taken, tape, *seeds, [True] * 4, given.spec), first, 0)


def test_a_spec_is_read_once_and_says_all() -> None:
    given = case(**LAYERS["projection"])
    options = json.loads(given.spec)
    assert options["num_directions"] == 2
    assert options["proj_size"] == 2
    assert options["dtype"] == "float64"
    assert _ops.program_of(given.spec) is _ops.program_of(given.spec)


# What is wrong


def changed(given: Case, place: int, value: Any) -> list[Any]:
    taken = arguments(given)
    taken[place] = value(taken[place]) if callable(value) else value
    return taken


WRONG: dict[str, tuple[int, Any, str]] = {
    "x-flat": (0, lambda x: x.flatten(), r"x: got shape \(18,\), expected \(T, B, 3\)"),
    "x-scalar": (0, torch.tensor(1.0).double(), r"x: got shape \(\), expected \(T, B, 3\)"),
    "x-wide": (0, lambda x: x.repeat(1, 1, 2), r"x: got shape \(3, 2, 6\), expected \(3, 2, 3\)"),
    "x-dtype": (0, lambda x: x.float(), "x: got torch.float32, expected torch.float64"),
    "x-integers": (0, lambda x: x.long(), "x: got torch.int64, expected torch.float64"),
    "x-complex": (0, lambda x: x.cfloat(), "x: got torch.complex64, expected torch.float64"),
    "x-half": (0, lambda x: x.bfloat16(), "x: got torch.bfloat16, expected torch.float64"),
    "x-meta": (0, lambda x: x.to("meta"), "meta"),
    "x-sparse": (0, lambda x: x.to_sparse(), "parse"),
    "h_0-batch": (1, lambda h: h[:, :1], r"h_0: got shape \(4, 1, 2\), expected \(4, 2, 2\)"),
    "h_0-flat": (1, lambda h: h[:, 0], r"h_0: got shape \(4, 2\), expected 3 dimensions"),
    "h_0-dtype": (1, lambda h: h.float(), "h_0: got torch.float32, expected torch.float64"),
    "h_0-meta": (1, lambda h: h.to("meta"), "meta"),
    "c_0-width": (2, lambda c: c[..., :2], r"c_0: got shape \(4, 2, 2\), expected \(4, 2, 3\)"),
    "parameters": (3, lambda p: p[1:], r"parameters: got shape \(\d+,\), expected \(\d+,\)"),
    "parameters-2d": (3, lambda p: p[:, None], "parameters: got shape .* expected 1 dimensions"),
    "parameters-empty": (3, lambda p: p[:0], r"parameters: got shape \(0,\)"),
    "recurrent": (5, torch.ones(4, 2, 3).double(), r"recurrent: got shape \(4, 2, 3\)"),
    "between": (6, torch.ones(2, 3, 2, 4).double(), r"between: got shape \(2, 3, 2, 4\)"),
    "between-dtype": (6, torch.ones(1, 3, 2, 4), "between: got torch.float32"),
    "zoneout_h": (7, torch.ones(4, 3, 2, 2).double(), "zoneout_h: got a mask, expected None"),
    "zoneout_c": (8, torch.ones(4, 3, 2, 3).double(), "zoneout_c: got a mask, expected None"),
}


def call(given: Case, operation: str, taken: list[Any], tape: Any) -> None:
    if operation == "backward":
        seeds = (torch.ones(3, 2, 4).double(), None, None)
        OPS.backward(*taken, tape, *seeds, [True] * 4, given.spec)
    elif operation in ("forward", "record"):
        getattr(OPS, operation)(*taken, given.spec)
    else:
        x, h_0, c_0, vector, sizes, *masks = taken
        parameters = [leaf.requires_grad_(operation == "trained") for leaf in given.leaves[3:]]
        if vector.numel() != sum(parameter.numel() for parameter in parameters):
            parameters[1] = parameters[1].flatten()
        _autograd.lstm(
            x, h_0, c_0, parameters, batch_sizes=sizes, masks=Masks(*masks), spec=given.spec
        )


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("operation", ["forward", "record", "backward", "lstm", "trained"])
def test_what_is_wrong_is_named(name: str, operation: str) -> None:
    given = case(sizes=(3, 2, 3, 3), **LAYERS["projection"])
    place, value, message = WRONG[name]
    *_, tape = OPS.record(*arguments(given), given.spec)
    taken = changed(given, place, value)
    if operation in ("lstm", "trained") and place == 3:
        taken[3], message = taken[3].new_empty(0), "parameters: got shape"
    with pytest.raises((TypeError, ValueError, RuntimeError, NotImplementedError), match=message):
        call(given, operation, taken, tape)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([3, 4], r"do not rise"),
        ([2, 3, 1], "do not rise"),
        ([4, 2], "do not rise, the first at most 3"),
        ([3, 2, 1, 0], "positive"),
        ([3, -1, 4], "positive"),
        ([3, 4, -1], "positive"),
        ([2, 2], "a sum of 4, expected 6, the rows of x"),
        ([2**62, 2**62, 2**62, 2**62], "at most 6 positive numbers"),
        ([1] * 100, "at most 6 positive numbers"),
        ([], "a sum of 0, expected 6"),
    ],
    ids=str,
)
def test_batch_sizes_are_checked(sizes: list[int], message: str) -> None:
    given = case(sizes=(3, 2, 3, 3)).with_sizes([3, 2, 1])
    taken = arguments(given)
    *_, tape = OPS.record(*taken, given.spec)
    taken[4] = torch.tensor(sizes, dtype=torch.int64)
    with pytest.raises(ValueError, match=f"batch_sizes: got .*({message})"):
        OPS.record(*taken, given.spec)
    with pytest.raises(ValueError, match=f"batch_sizes: got .*({message})"):
        OPS.backward(*taken, tape, None, None, None, [True] * 4, given.spec)
    for value in (taken[4].int(), taken[4][None], taken[4].double()):
        taken[4] = value
        with pytest.raises(ValueError, match=r"batch_sizes: got .*, expected shape \(T,\) of"):
            OPS.forward(*taken, given.spec)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, lambda tape: tape[:, 1:], "tape: got shape"),
        (0, lambda tape: tape.flatten(), "tape: got shape"),
        (0, lambda tape: tape.transpose(1, 2), "tape: got shape"),
        (0, lambda tape: tape.float(), "tape: got torch.float32"),
        (0, lambda tape: tape[:0], "tape: got shape"),
        (1, torch.ones(3, 2, 5).double(), "dy: got shape"),
        (1, torch.ones(3, 2, 4), "dy: got torch.float32"),
        (1, torch.ones(3, 2, 4).double().to("meta"), "meta"),
        (2, torch.ones(4, 2, 3).double(), "dh_n: got shape"),
        (3, torch.ones(4, 2, 2).double(), "dc_n: got shape"),
        (4, [True] * 3, "wanted: got 3 flags, expected 4"),
        (4, [True] * 5, "wanted: got 5 flags, expected 4"),
        (4, [], "wanted: got 0 flags, expected 4"),
    ],
)
def test_what_is_wrong_of_a_backward_pass_is_named(place: int, value: Any, message: str) -> None:
    given = case(sizes=(3, 2, 3, 3), **LAYERS["projection"])
    taken = arguments(given)
    rest = [OPS.record(*taken, given.spec)[3], None, None, None, [True] * 4]
    rest[place] = value(rest[place]) if callable(value) else value
    with pytest.raises((TypeError, ValueError, RuntimeError), match=message):
        OPS.backward(*taken, *rest, given.spec)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "3",
        "{}",
        '{"num_directions": 3, "input_size": 3, "hidden_size": 3}',
        '{"num_directions": 1, "input_size": 3, "hidden_size": -3}',
        '{"num_directions": 1, "input_size": 3, "hidden_size": 1e400}',
        '{"num_directions": 1, "input_size": 3, "hidden_size": 3, "unknown": 1}',
        '{"num_directions": 1, "input_size": 3, "hidden_size": 3, "dtype": "int8"}',
        '{"num_directions": 1, "input_size": 3, "hidden_size": 3, "dtype": "float64"}',
        '{"num_directions": 1, "input_size": 3, "hidden_size": 1000000000000, "dtype": "float64"}',
        "[" * 100_000,
    ],
    ids=range(13),
)
def test_a_spec_that_was_tampered_with_is_refused(text: str) -> None:
    taken = arguments(case(sizes=(3, 2, 3, 4)))
    tape = torch.zeros(1, 3, 2, 20).double()
    with pytest.raises((TypeError, ValueError, RecursionError)):
        OPS.forward(*taken, text)
    with pytest.raises((TypeError, ValueError, RecursionError)):
        OPS.backward(*taken, tape, None, None, None, [True] * 4, text)


def test_what_was_packed_before_is_used_for_the_same_numbers_alone() -> None:
    """Passes with gradients notice what no counter does, and other modules of the same sizes."""
    ours = [LSTM(3, 4).double() for _ in range(2)]
    theirs = [torch.nn.LSTM(3, 4).double() for _ in range(2)]
    x = torch.randn(5, 2, 3).double()
    for factor in (1.0, 1.0, 0.5, -2.0):
        totals: list[Any] = [0, 0]
        for own, other in zip(ours, theirs, strict=True):
            for parameter in other.parameters():
                parameter.data.mul_(factor)
            for mine, parameter in zip(own.parameters(), other.parameters(), strict=True):
                mine.data.copy_(parameter)
            for k, module in enumerate((own, other)):
                totals[k] = totals[k] + module(x)[0].square().sum()
        assert_close(*totals)
        for total in totals:
            total.backward()
        for own, other in zip(ours, theirs, strict=True):
            for mine, parameter in zip(own.parameters(), other.parameters(), strict=True):
                assert_close(mine.grad, parameter.grad)


def test_parameters_of_any_strides_are_read() -> None:
    given = case()
    parameters = [p.detach() for p in given.leaves[3:]]
    odd = [
        torch._neg_view(-p) if k % 2 else p.mT.contiguous().mT if p.dim() == 2 else p
        for k, p in enumerate(parameters)
    ]
    results = []
    for own in (parameters, odd):
        own = [p.requires_grad_() for p in own]
        y, *_ = _autograd.lstm(
            *given.leaves[:3], own, batch_sizes=given.batch_sizes, spec=given.spec
        )
        results.append((y, *torch.autograd.grad(y.sum(), own)))
    assert_close(*results, 0)
