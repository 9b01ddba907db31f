"""`fastlstm.torch.LSTM` beside `torch.nn.LSTM`: what it is made of, and what it gives."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from typing import Any

import pytest

from support.optional import require

torch = require("torch")

from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence  # noqa: E402

import fastlstm.torch  # noqa: E402
from support.torch_modules import OLD_ERRORS, error_of, flat, gradients, pair  # noqa: E402

# PyTorch says so of its own projections.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")

CLOSE = {torch.float32: {"rtol": 2e-5, "atol": 2e-6}, torch.float64: {"rtol": 1e-11, "atol": 1e-13}}

OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 3},
    {"bias": False},
    {"batch_first": True},
    {"bidirectional": True},
    {"proj_size": 3},
    {"num_layers": 2, "bidirectional": True, "proj_size": 2, "batch_first": True},
    {"num_layers": 2, "bias": False, "proj_size": 3, "dropout": 0.5},
    {"dtype": torch.float64, "num_layers": 2, "bidirectional": True},
]
NAMES = ["-".join(f"{k}={v}" for k, v in options.items()) for options in OPTIONS]


def inputs(options: dict[str, Any], kind: str, seed: int = 1) -> tuple[Any, Any]:
    """An input of a kind for a layer of 4 numbers and 5 units, and initial states."""
    torch.manual_seed(seed)
    dtype = options.get("dtype", torch.float32)
    T, B = 6, 3
    rows = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    batch = () if kind == "unbatched" else (B,)
    state = (
        torch.randn(rows, *batch, options.get("proj_size", 0) or 5, dtype=dtype),
        torch.randn(rows, *batch, 5, dtype=dtype),
    )
    if kind == "unbatched":
        return torch.randn(T, 4, dtype=dtype), state
    padded = torch.randn(T, B, 4, dtype=dtype)
    if kind == "sorted":
        return pack_padded_sequence(padded, [6, 4, 1]), state
    if kind == "unsorted":
        return pack_padded_sequence(padded, [2, 6, 4], enforce_sorted=False), state
    return padded.transpose(0, 1) if options.get("batch_first") else padded, state


def leaves_of(module: torch.nn.Module, x: Any, state: Any) -> list[torch.Tensor]:
    return [x.data if hasattr(x, "data") else x, *state, *module.parameters()]


@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_is_made_of_the_same_parameters(options: dict[str, Any]) -> None:
    theirs, ours = pair(4, 5, **options)
    expected = list(theirs.named_parameters())
    got = list(ours.named_parameters())
    assert [name for name, _ in got] == [name for name, _ in expected]
    for (_, our), (_, their) in zip(got, expected, strict=True):
        assert our.dtype == their.dtype
        assert torch.equal(our, their)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours._flat_weights_names == theirs._flat_weights_names
    assert ours._all_weights == theirs._all_weights
    assert [w.shape for w in ours._flat_weights] == [w.shape for w in theirs._flat_weights]
    for ours_, theirs_ in zip(ours.all_weights, theirs.all_weights, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours_, theirs_, strict=True))
    ours.flatten_parameters()

    other = torch.nn.LSTM(4, 5, **options)
    other.load_state_dict(ours.state_dict())
    ours.load_state_dict(torch.nn.LSTM(4, 5, **options).state_dict())
    torch.manual_seed(7)
    theirs.reset_parameters()
    torch.manual_seed(7)
    ours.reset_parameters()
    for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(our, their)


def test_takes_all_arguments_by_position() -> None:
    args = (4, 6, 2, False, True, 0.25, True, 3, "cpu", torch.float64)
    theirs, ours = pair(*args)
    assert repr(ours) == repr(theirs)
    assert ours.weight_hr_l1_reverse.dtype == torch.float64
    theirs, ours = pair(4, 6, True, name="LSTMCell", device="cpu", dtype=torch.float64)
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("kind", ["padded", "unbatched", "sorted", "unsorted"])
@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_gives_the_same(options: dict[str, Any], kind: str) -> None:
    theirs, ours = pair(4, 5, **options)
    close = CLOSE[options.get("dtype", torch.float32)]
    x, state = inputs(options, kind)
    for given in ((x,), (x, state)):
        for training, grad in itertools.product((True, False), repeat=2):
            theirs.train(training)
            ours.train(training)
            with torch.set_grad_enabled(grad):
                torch.manual_seed(3)
                expected = theirs(*given)
                after = torch.get_rng_state()
                torch.manual_seed(3)
                got = ours(*given)
            assert torch.equal(torch.get_rng_state(), after)
            assert type(got[0]) is type(expected[0])
            for our, their in zip(flat(got), flat(expected), strict=True):
                assert our.shape == their.shape
                assert our.dtype == their.dtype
                assert our.requires_grad == their.requires_grad
                torch.testing.assert_close(our, their, **close)


@pytest.mark.parametrize("kind", ["padded", "unbatched", "unsorted"])
@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_has_the_same_gradients(options: dict[str, Any], kind: str) -> None:
    theirs, ours = pair(4, 5, **options)
    x, state = inputs(options, kind)
    data = x.data if kind == "unsorted" else x
    for tensor in (data, *state):
        tensor.requires_grad_()
    found = []
    for module in (theirs, ours):
        torch.manual_seed(3)
        results = module(x, state)
        found.append(gradients(results, [data, *state, *module.parameters()]))
    close = CLOSE[options.get("dtype", torch.float32)]
    for our, their in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(our, their, rtol=10 * close["rtol"], atol=10 * close["atol"])


@pytest.mark.parametrize("chosen", ["weight_hh_l0", "bias_ih_l1_reverse", "x", "h_0"])
def test_leaves_out_gradients_that_nobody_wants(chosen: str) -> None:
    options = {"num_layers": 2, "bidirectional": True, "dtype": torch.float64}
    theirs, ours = pair(4, 5, **options)
    x, state = inputs(options, "padded")
    found = []
    for module in (theirs, ours):
        module.requires_grad_(False)
        given = {"x": x.clone(), "h_0": state[0].clone(), **dict(module.named_parameters())}
        given[chosen].requires_grad_()
        results = module(given["x"], (given["h_0"], state[1]))
        found += gradients(results, [given[chosen]])
        assert all(p.grad is None for p in module.parameters())
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("args", "options"),
    [
        ((4, 5), {"dropout": 1.5}),
        ((4, 5), {"dropout": True}),
        ((4, 5), {"dropout": "a"}),
        ((4, 5), {"bias": 1}),
        ((4, 5), {"batch_first": None}),
        ((4.0, 5), {}),
        ((0, 5), {}),
        ((4, "5"), {}),
        ((4, 0), {}),
        ((4, 5, 0), {}),
        ((4, 5), {"proj_size": -1}),
        ((4, 5), {"proj_size": 5}),
    ],
)
def test_refuses_the_same_options(args: tuple[Any, ...], options: dict[str, Any]) -> None:
    expected = error_of(lambda: torch.nn.LSTM(*args, **options))
    if expected is None and OLD_ERRORS:
        return
    assert expected is not None
    assert error_of(lambda: fastlstm.torch.LSTM(*args, **options)) == expected


def test_warns_of_dropout_without_a_layer_above() -> None:
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last"):
        fastlstm.torch.LSTM(4, 5, dropout=0.5)


WRONG: dict[str, tuple[Any, ...]] = {
    "dimensions": (torch.zeros(2, 3, 4, 4),),
    "one dimension": (torch.zeros(4),),
    "input size": (torch.zeros(6, 3, 5),),
    "input size unbatched": (torch.zeros(6, 5),),
    "dtype": (torch.zeros(6, 3, 4, dtype=torch.float64),),
    "no steps": (torch.zeros(0, 3, 4),),
    "integers": (torch.zeros(6, 3, 4, dtype=torch.int64),),
    "h_0 unbatched": (torch.zeros(6, 3, 4), (torch.zeros(1, 5), torch.zeros(1, 5))),
    "h_0 batched": (torch.zeros(6, 4), (torch.zeros(1, 3, 5), torch.zeros(1, 3, 5))),
    "h_0 of another batch": (torch.zeros(6, 3, 4), (torch.zeros(1, 2, 5), torch.zeros(1, 3, 5))),
    "c_0 of another batch": (torch.zeros(6, 3, 4), (torch.zeros(1, 3, 5), torch.zeros(1, 2, 5))),
    "c_0 of another size": (torch.zeros(6, 3, 4), (torch.zeros(1, 3, 5), torch.zeros(1, 3, 6))),
    "rows": (torch.zeros(6, 3, 4), (torch.zeros(2, 3, 5), torch.zeros(2, 3, 5))),
    "states of another dtype": (
        torch.zeros(6, 3, 4),
        (torch.zeros(1, 3, 5).double(), torch.zeros(1, 3, 5).double()),
    ),
    "three states": (torch.zeros(6, 3, 4), (torch.zeros(1, 3, 5),) * 3),
}


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["", "batch_first"])
@pytest.mark.parametrize("given", WRONG.values(), ids=WRONG.keys())
def test_refuses_the_same_calls(given: tuple[Any, ...], batch_first: bool, grad: bool) -> None:
    theirs, ours = pair(4, 5, batch_first=batch_first)
    with torch.set_grad_enabled(grad):
        expected = error_of(lambda: theirs(*given))
        got = error_of(lambda: ours(*given))
    assert got == expected


def test_takes_an_empty_batch() -> None:
    theirs, ours = pair(4, 5, 2, bidirectional=True)
    x = torch.zeros(6, 0, 4, requires_grad=True)
    for our, their in zip(flat(ours(x)), flat(theirs(x)), strict=True):
        assert our.shape == their.shape


@pytest.mark.parametrize("strides", ["transposed", "sliced", "expanded", "negative"])
def test_reads_any_strides(strides: str) -> None:
    theirs, ours = pair(4, 5)
    x = {
        "transposed": torch.randn(3, 4, 6).permute(2, 0, 1),
        "sliced": torch.randn(6, 3, 9)[..., 1::2],
        "expanded": torch.randn(1, 3, 4).expand(6, 3, 4),
        "negative": torch.randn(6, 3, 4).flip(0),
    }[strides]
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for our, their in zip(flat(ours(x)), flat(theirs(x)), strict=True):
                torch.testing.assert_close(our, their, **CLOSE[torch.float32])


def test_packed_sequences_of_lists_keep_their_order() -> None:
    ours = fastlstm.torch.LSTM(4, 5, 2, bidirectional=True)
    sequences = [torch.randn(n, 4) for n in (2, 5, 3)]
    packed = pack_sequence(sequences, enforce_sorted=False)
    y, (h_n, _) = ours(packed)
    assert torch.equal(y.batch_sizes, packed.batch_sizes)
    assert torch.equal(y.sorted_indices, packed.sorted_indices)
    for b, sequence in enumerate(sequences):
        alone, (h_alone, _) = ours(sequence)
        assert torch.equal(h_n[:, b], h_alone)
        padded, _ = torch.nn.utils.rnn.pad_packed_sequence(y)
        assert torch.equal(padded[: len(sequence), b], alone)


def test_copies_and_files_have_the_parameters() -> None:
    options = {"num_layers": 2, "bidirectional": True, "proj_size": 2}
    ours = fastlstm.torch.LSTM(4, 5, **options, zoneout_h=0.25)
    ours.eval()
    x = torch.randn(6, 3, 4)
    with torch.no_grad():
        expected = flat(ours(x))
        buffer = io.BytesIO()
        torch.save(ours, buffer)
        buffer.seek(0)
        loaded = torch.load(buffer, weights_only=False)
        for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), loaded):
            assert repr(other) == repr(ours)
            assert not set(map(id, other.parameters())) & set(map(id, ours.parameters()))
            for our, copied in zip(expected, flat(other(x)), strict=True):
                assert torch.equal(our, copied)
            other.weight_hh_l0.data.zero_()
            assert not torch.equal(flat(other(x))[0], expected[0])


def test_flat_weights_follow_the_parameters() -> None:
    ours = fastlstm.torch.LSTM(4, 5)
    new = torch.nn.Parameter(torch.zeros(20, 5))
    ours.weight_hh_l0 = new
    assert ours._flat_weights[1] is new
    ours.double()
    assert ours._flat_weights[1] is ours.weight_hh_l0
    assert ours._flat_weights[1].dtype == torch.float64


def test_a_parameter_may_be_missing_for_a_while() -> None:
    theirs, ours = pair(4, 5)
    x = torch.randn(6, 3, 4)
    for module in (theirs, ours):
        weight = module.weight_hh_l0
        del module.weight_hh_l0
        module.double()
        module.weight_hh_l0 = weight.double()  # a plain tensor, as of old pruning code
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for our, their in zip(flat(ours(x.double())), flat(theirs(x.double())), strict=True):
                torch.testing.assert_close(our, their, **CLOSE[torch.float64])


@pytest.mark.parametrize("chosen", [0, 1, 2], ids=["y", "h_n", "c_n"])
def test_one_result_alone_has_gradients(chosen: int) -> None:
    theirs, ours = pair(4, 5, 2, bidirectional=True)
    x = torch.randn(6, 3, 4, requires_grad=True)
    found = []
    for module in (theirs, ours):
        result = flat(module(x))[chosen]
        leaves = [x, *module.parameters()]
        seed = torch.linspace(-1, 1, result.numel()).view_as(result)
        found.append(
            torch.autograd.grad(result, leaves, seed, allow_unused=True, materialize_grads=True)
        )
    for our, their in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5)


def test_reads_attributes_at_each_call() -> None:
    theirs, ours = pair(4, 5, 2, dropout=0.5)
    x = torch.randn(6, 3, 4)
    for module in (theirs, ours):
        module.dropout = 0.0
        module.batch_first = True
    for our, their in zip(flat(ours(x)), flat(theirs(x)), strict=True):
        torch.testing.assert_close(our, their, **CLOSE[torch.float32])


@pytest.mark.parametrize("gradients", [False, True])
def test_a_missing_attribute_is_named(gradients: bool) -> None:
    """As PyTorch's own tests ask, which take ``training`` away to see whether a module looks."""
    lstm = fastlstm.torch.LSTM(3, 4)
    del lstm.training
    with torch.set_grad_enabled(gradients), pytest.raises(AttributeError, match="'training'"):
        lstm(torch.zeros(2, 1, 3))
