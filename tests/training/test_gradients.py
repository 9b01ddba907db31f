"""The numbers of a tape's gradients: differences, the reference, PyTorch, and bits against bits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM, Gradients, _core
from support.arrays import assert_close, assert_same_bits, finite_differences
from support.gradient_cases import (
    TOLERANCE,
    Case,
    assert_same_gradients,
    by_name,
    gradients,
    of_reference,
    random_case,
)
from support.optional import require
from support.reference_cases import THROUGH

pytestmark = pytest.mark.wheel


def assert_agrees_with_reference(*sizes: Any, dtype: type, **options: Any) -> None:
    """Check a case on every instruction set; the reference, being slow, computes it once."""
    expected = None
    for isa in _core.available_isas():
        case = random_case(*sizes, dtype=dtype, isa=isa, **options)
        grads = gradients(case)
        assert all(array.dtype == dtype for array in grads)
        expected = expected or of_reference(case)
        assert_close(by_name(case, grads), expected, TOLERANCE[dtype])


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    before = fastlstm.get_num_threads()
    yield
    fastlstm.set_num_threads(before)


# Finite differences


@pytest.mark.parametrize("through", THROUGH, ids="-".join)
@pytest.mark.parametrize(
    ("T", "B", "I", "H", "L", "D", "bias"),
    [
        (1, 1, 1, 1, 1, 1, True),
        (7, 2, 3, 2, 1, 1, False),
        (5, 3, 2, 3, 1, 2, True),
        (4, None, 2, 5, 2, 1, True),
        (3, 2, 1, 2, 3, 2, False),
    ],
)
def test_agrees_with_finite_differences(
    T: int, B: int | None, I: int, H: int, L: int, D: int, bias: bool, through: tuple[str, ...]
) -> None:
    cases = [
        random_case(3, T, B, I, H, L, D, bias=bias, through=through, dtype=np.float64, isa=isa)
        for isa in _core.available_isas()
    ]
    found = [by_name(case, gradients(case)) for case in cases]
    layer, x, (h_0, c_0), given = cases[0]
    vector = layer.parameters.copy()

    def loss() -> float:
        layer.load_parameters(vector)
        y, states = layer(x, (h_0, c_0))
        pairs = zip(given, (y, *states), strict=True)
        return float(sum((d * value).sum() for d, value in pairs if d is not None))

    arrays = {"x": x, "h_0": h_0, "c_0": c_0, **layer.named_views(vector)}
    expected = {name: finite_differences(loss, array) for name, array in arrays.items()}
    for got in found:
        assert_close(got, expected, 1e-9)


# The reference

# Around the tiles of every instruction set: 1, 2, 4, 8, 16 lanes, panels of 4 vectors, and twice.
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129]
# Around tiles of 3 and 6 rows.
BATCHES = [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13]


@pytest.mark.parametrize("size", SIZES)
def test_sizes_around_the_tiles(size: int, dtype: type) -> None:
    other = SIZES[-1 - SIZES.index(size)]
    for I, H in {(size, other), (size, size)}:
        B = BATCHES[(I + H) % len(BATCHES)]
        assert_agrees_with_reference(size, 3, B, I, H, dtype=dtype)


@pytest.mark.parametrize("batch", BATCHES)
def test_batches_around_the_tiles(batch: int, dtype: type) -> None:
    for T, H, D in ((1, 5, 1), (4, 9, 2)):
        for first in (False, True):
            assert_agrees_with_reference(
                batch, T, batch, 3, H, 2, D, batch_first=first, dtype=dtype
            )


# T, B, H. Sums over rows are cut into blocks of 256, and time into chunks of at least so many rows
# and about 512 KiB of 4H numbers: where H is small, that is the larger of the two.
LONG = [
    (255, 1, 2), (256, 1, 2), (257, 1, 2), (513, 1, 3),  # one chunk, blocks of rows
    (64, 4, 2), (43, 6, 2), (37, 7, 1), (103, 5, 3),
    (909, 1, 16), (910, 1, 16), (911, 1, 16), (1821, 1, 16),  # chunks of 910 steps in float64
    (909, 1, 32), (910, 1, 32), (911, 1, 32), (456, 2, 32),  # in float32
    (260, 1, 129), (257, 2, 67), (130, 4, 131), (53, 5, 127),  # chunks of as many rows as a block
    (3, 248, 64), (2, 255, 64), (3, 256, 64), (3, 257, 65), (2, 300, 111),  # of a step or two
]  # fmt: skip


@pytest.mark.slow(sizes=(130, 4, 131))
@pytest.mark.slow(sizes=(1821, 1, 16))
@pytest.mark.slow(sizes=(260, 1, 129))
@pytest.mark.slow(sizes=(2, 300, 111))
@pytest.mark.parametrize("sizes", LONG, ids=str)
def test_blocks_of_rows_and_chunks_of_time(sizes: tuple[int, int, int], dtype: type) -> None:
    T, B, H = sizes
    assert_agrees_with_reference(T, T, B, 3, H, dtype=dtype)


@pytest.mark.slow(layers=4)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [2, 3, 4])
def test_stacks_over_several_chunks(layers: int, directions: int, dtype: type) -> None:
    assert_agrees_with_reference(1, 110, 16, 7, 17, layers, directions, dtype=dtype)


# PyTorch


@pytest.fixture
def torch() -> Iterator[Any]:
    """PyTorch on one thread: at these sizes, several wait longer than they compute."""
    module = require("torch")
    before = module.get_num_threads()
    module.set_num_threads(1)
    yield module
    module.set_num_threads(before)


@pytest.mark.parametrize("trial", range(48))
def test_equals_torch_and_the_reference(torch: Any, trial: int, dtype: type) -> None:
    rng = np.random.default_rng(trial)
    I, H = (int(n) for n in rng.choice(SIZES[:-3], 2))
    T = int(rng.integers(1, 40))
    L, D = trial % 3 + 1, trial // 3 % 2 + 1
    bias, batch_first, batched, with_state = (bool(n) for n in rng.integers(0, 2, 4))
    B = int(rng.choice(BATCHES)) if batched else None
    options = {"bias": bias, "batch_first": batch_first}
    cases = [
        random_case(
            trial, T, B, I, H, L, D, through=THROUGH[trial // 6 % 4], with_state=with_state,
            dtype=dtype, isa=isa, **options,
        )
        for isa in _core.available_isas()
    ]  # fmt: skip
    case = cases[0]

    # The oracle is PyTorch in float64, its weights first rounded to the precision under test.
    module = torch.nn.LSTM(I, H, L, bidirectional=D == 2, **options).double()
    weights = case.layer.state_dict()
    module.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in weights.items()})
    rows = (L * D, *(() if B is None else (B,)), H)
    h_0, c_0 = case.state or (np.zeros(rows), np.zeros(rows))
    inputs = [torch.from_numpy(a).double().requires_grad_() for a in (case.x, h_0, c_0)]
    y, states = module(inputs[0], (inputs[1], inputs[2]))
    arriving = [
        (output, torch.from_numpy(d).double())
        for output, d in zip((y, *states), case.given, strict=True)
        if d is not None
    ]
    by = {"x": inputs[0], "h_0": inputs[1], "c_0": inputs[2], **dict(module.named_parameters())}
    outputs, given = zip(*arriving, strict=True)
    found = torch.autograd.grad(outputs, list(by.values()), given, materialize_grads=True)
    expected = {name: tensor.numpy() for name, tensor in zip(by, found, strict=True)}

    by_reference = of_reference(case)
    for case in cases:
        got = by_name(case, gradients(case))
        assert_close(got, expected, TOLERANCE[dtype])
        assert_close(got, by_reference, TOLERANCE[dtype])


# Bits

# T, B, I, H, L, D: shared out by sequences, by units, and steps by one thread but products by all;
# with fewer steps or sequences than threads, with panels that threads cannot share evenly, and with
# two steps left for the last chunk of time. On Linux a call takes no more threads than processors.
SHARED = [
    (60, 17, 5, 37, 1, 1),
    (30, 23, 9, 21, 2, 2),
    (20, 1, 5, 259, 1, 1),
    (9, 2, 5, 131, 2, 2),
    (400, 3, 5, 33, 1, 1),
    (300, 1, 3, 19, 2, 2),
    (2, 7, 30, 259, 1, 1),
    (1, 15, 200, 130, 1, 1),
    (3, 1, 400, 300, 1, 1),
    (88, 3, 5, 67, 1, 1),
    (162, 3, 5, 67, 1, 1),
]


@pytest.mark.slow(dtype=np.float64)
@pytest.mark.slow(batch_first=True)
@pytest.mark.parametrize("sizes", SHARED, ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
def test_bits_do_not_depend_on_threads_or_instruction_set(
    sizes: tuple[int, ...], batch_first: bool, dtype: type
) -> None:
    expected = None
    for isa in _core.available_isas():
        case = random_case(2, *sizes, batch_first=batch_first, dtype=dtype, isa=isa)
        assert case.layer.isa == isa
        for count in (1, 2, 3, 4):
            fastlstm.set_num_threads(count)
            got = gradients(case)
            expected = expected or got
            assert_same_gradients(got, expected)
            if count == 3:  # other parts of the work, other ways through it
                assert_same_gradients(gradients(case, wrt=["x"]), Gradients(x=expected.x))
                assert_same_gradients(
                    gradients(case, wrt=["params"]), Gradients(params=expected.params)
                )


@pytest.mark.parametrize("sizes", SHARED, ids=str)
def test_shared_work_agrees_with_the_reference(sizes: tuple[int, ...], dtype: type) -> None:
    fastlstm.set_num_threads(4)
    assert_agrees_with_reference(2, *sizes, dtype=dtype)


def test_instruction_sets_agree_on_extreme_values(dtype: type) -> None:
    # Saturated, denormal, huge: where flushing, clamping and overflow happen. No NaN: the bit
    # pattern of a NaN is not promised.
    rng = np.random.default_rng(5)
    tiny, huge = np.finfo(dtype).tiny, np.finfo(dtype).max ** 0.25
    values = np.array(
        [0, -0.0, tiny, -tiny, tiny / 2, -tiny / 8, 1e-30, 1, -1, 100, -100, huge], dtype
    )
    case = random_case(5, 40, 6, 9, 21, dtype=dtype)
    _, x, (h_0, c_0), given = case
    for array in (x, h_0, c_0, *given[1:]):
        array[...] = rng.choice(values, size=array.shape)
    given[0][...] = rng.choice(values[:-1], size=given[0].shape)
    expected = None
    for isa in _core.available_isas():
        layer = LSTM(9, 21, dtype=dtype, isa=isa, seed=3)
        got = gradients(case._replace(layer=layer))
        assert all(np.isfinite(a).all() for a in got)
        expected = expected or got
        assert_same_gradients(got, expected)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 7, 2), (16, 17, 3), (31, 67, 2)], ids=str)
def test_a_sequence_alone_equals_itself_in_a_batch(
    sizes: tuple[int, int, int], directions: int, isa: str, dtype: type
) -> None:
    for batch in (2, 7, 33):
        case = random_case(batch, 7, batch, *sizes, directions, dtype=dtype, isa=isa)
        whole = gradients(case)
        for b in {0, batch // 2, batch - 1}:
            one = slice(b, b + 1)
            alone = case._replace(
                x=case.x[:, one],
                state=tuple(s[:, one] for s in case.state),
                given=tuple(d[:, one] for d in case.given),
            )
            expected = [np.ascontiguousarray(a[:, one]) for a in whole[:3]]
            got = gradients(alone)
            assert_same_gradients(got._replace(params=None), Gradients(*expected))
            # Without the batch's axis it is the same call.
            bare = alone._replace(
                x=alone.x[:, 0],
                state=tuple(s[:, 0] for s in alone.state),
                given=tuple(d[:, 0] for d in alone.given),
            )
            assert_same_gradients(
                gradients(bare),
                Gradients(*(np.ascontiguousarray(a[:, 0]) for a in got[:3]), got.params),
            )


def test_other_sequences_do_not_matter(isa: str, dtype: type) -> None:
    case = random_case(0, 9, 8, 5, 33, 2, dtype=dtype, isa=isa)
    expected = [a[:, 3].copy() for a in gradients(case)[:3]]
    for array in (case.x, *case.state, *case.given):
        array[:, :3] = np.nan
        array[:, 4:] = np.inf
    for got, wanted in zip(gradients(case)[:3], expected, strict=True):
        assert_same_bits(got[:, 3].copy(), wanted)


@pytest.mark.parametrize("make", [LSTM, BiLSTM])
def test_batch_first_equals_time_major(make: type, isa: str, dtype: type) -> None:
    D = make.num_directions
    for T, B in ((9, 4), (4, 9), (1, 5), (5, 1)):
        case = random_case(1, T, B, 6, 10, 2, D, dtype=dtype, isa=isa)
        layer = make(6, 10, 2, batch_first=True, dtype=dtype, isa=isa)
        layer.load_parameters(case.layer.parameters)
        dy, *dstate = case.given
        swapped = Case(layer, case.x.swapaxes(0, 1), case.state, (dy.swapaxes(0, 1), *dstate))
        got = gradients(swapped)
        assert got.x.flags.c_contiguous
        x = np.ascontiguousarray(got.x.swapaxes(0, 1))
        assert_same_gradients(got._replace(x=x), gradients(case))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("make", [LSTM, BiLSTM])
def test_strided_equals_contiguous(make: type, isa: str, dtype: type, batch_first: bool) -> None:
    rng = np.random.default_rng(2)
    layer = make(4, 9, 2, batch_first=batch_first, dtype=dtype, isa=isa, seed=5)
    D = layer.num_directions

    def strided(base: np.ndarray, n: int) -> list[np.ndarray]:
        return [
            base[:7, :6, :n],
            base[::2, ::2, : 2 * n : 2],
            base[::-2, 5::-1, n - 1 :: -1],
            base[:7, :6, n : 2 * n],
            np.asfortranarray(base[:7, :6, :n]),
            np.broadcast_to(base[:1, :6, :n], (7, 6, n)),
            np.broadcast_to(base[:7, :1, :n], (7, 6, n)),
            np.broadcast_to(base[:1, :1, :1], (7, 6, n)),
        ]

    xs, dys = (strided(rng.normal(size=(14, 12, 2 * n)).astype(dtype), n) for n in (4, 9 * D))
    states = rng.normal(size=(4, 2 * D, 9, 7 if batch_first else 6)).astype(dtype)
    h_0, c_0, dh_n, dc_n = (s.transpose(0, 2, 1) for s in states)
    assert not h_0.flags.c_contiguous
    for x, dy in zip(xs, dys, strict=True):
        case = Case(layer, x, (h_0, c_0), (dy, dh_n, dc_n))
        copies = Case(
            layer,
            np.ascontiguousarray(x),
            (np.ascontiguousarray(h_0), np.ascontiguousarray(c_0)),
            tuple(map(np.ascontiguousarray, case.given)),
        )
        assert_same_gradients(gradients(case), gradients(copies))


def test_runs_repeat(isa: str, dtype: type) -> None:
    case = random_case(5, 30, 3, 3, 19, 2, 2, dtype=dtype, isa=isa)
    expected = gradients(case)
    for _ in range(5):
        assert_same_gradients(gradients(case), expected)


def test_both_biases_have_the_same_gradient(isa: str, dtype: type) -> None:
    case = random_case(5, 6, 3, 3, 7, 2, 2, dtype=dtype, isa=isa)
    got = by_name(case, gradients(case))
    pairs = [(n, n.replace("_ih_", "_hh_")) for n in got if n.startswith("bias_ih")]
    assert len(pairs) == 4
    for one, other in pairs:
        assert_same_bits(got[one], got[other])


def test_none_equals_zeros(isa: str, dtype: type) -> None:
    case = random_case(5, 6, 3, 3, 7, 2, dtype=dtype, isa=isa, with_state=False)
    _, dh_n, dc_n = case.given
    zeros = case._replace(state=(np.zeros_like(dh_n), np.zeros_like(dc_n)))
    assert_same_gradients(gradients(case), gradients(zeros))
    for left_out in range(1, 8):
        out = [left_out >> k & 1 for k in range(3)]
        nothing = tuple(None if o else d for o, d in zip(out, case.given, strict=True))
        zero = tuple(0 * d if o else d for o, d in zip(out, case.given, strict=True))
        got, expected = (gradients(case._replace(given=given)) for given in (nothing, zero))
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_array_equal(a, b)
        if left_out == 7:
            assert not any(a.any() for a in got)


# Cutting


# T, B, I, H, L; the last two longer than a chunk of time inside the core.
@pytest.mark.parametrize(
    "sizes", [(40, 4, 3, 7, 2), (40, 1, 16, 17, 3), (300, 1, 2, 64, 1), (150, 4, 2, 64, 1)], ids=str
)
def test_chunks_with_the_gradient_handed_back_equal_the_whole(
    sizes: tuple[int, ...], isa: str, dtype: type
) -> None:
    T = sizes[0]
    case = random_case(1, *sizes, dtype=dtype, isa=isa)
    dy, dh_n, dc_n = case.given
    expected = gradients(case)
    for cuts in ([0, 1, 2, T], [0, T // 2, T], [0, 7, 7, 30, T - 1, T]):
        tapes = []
        state = case.state
        for first, end in pairwise(cuts):
            _, state, tape = case.layer.record(case.x[first:end], state)
            tapes.append((first, end, tape))
        total = None
        handed = (dh_n, dc_n)
        dx = np.empty_like(case.x)
        for first, end, tape in reversed(tapes):
            grads = tape.backward(dy[first:end], handed)
            handed = (grads.h_0, grads.c_0)
            dx[first:end] = grads.x
            total = grads.params if total is None else total + grads.params
        assert_same_gradients(Gradients(dx, *handed), expected._replace(params=None))
        got, whole = (case.layer.named_views(v) for v in (total, expected.params))
        assert_close(got, whole, {np.float32: 2e-6, np.float64: 2e-15}[dtype])


# What is not a number


def test_nan_and_infinity_arrive_where_they_belong(isa: str, dtype: type) -> None:
    case = random_case(5, 9, 5, 3, 17, dtype=dtype, isa=isa)
    clean = gradients(case)
    dy, *_ = case.given
    for value in (np.nan, np.inf, -np.inf):
        dirty = dy.copy()
        dirty[4, 1] = value
        got = gradients(case._replace(given=(dirty, *case.given[1:])))
        others = [0, 2, 3, 4]
        for a, b in zip(got[:3], clean[:3], strict=True):
            assert_same_bits(a[:, others], b[:, others])
        assert_same_bits(got.x[5:, 1], clean.x[5:, 1])  # later steps don't see it
        assert not np.isfinite(got.x[:5, 1]).any()
        assert not np.isfinite(got.h_0[:, 1]).any()
        assert not np.isfinite(got.params).any()


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("sizes", [(9, 5, 3, 17, 2, 2), *SHARED[:1], SHARED[2]], ids=str)
def test_any_values_are_survived(sizes: tuple[int, ...], count: int, isa: str, dtype: type) -> None:
    fastlstm.set_num_threads(count)
    case = random_case(5, *sizes, dtype=dtype, isa=isa)
    for value in (np.nan, np.inf):
        for array in (case.x, *case.state, *case.given):
            array[...] = value
        for got, like in zip(gradients(case)[:3], (case.x, *case.state), strict=True):
            assert got.shape == like.shape
            assert not np.isfinite(got).all()
