"""What a layer offers beyond its numbers: conversions, parameters, copies, empty input."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM, reference
from support.arrays import assert_same_bits
from support.layers import layer_class, random_state, results

pytestmark = [
    pytest.mark.default_isa,
    pytest.mark.sanitized,
    pytest.mark.emulated,
    pytest.mark.wheel,
]


def assert_all_same_bits(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(got, expected, strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_equals_reference(directions: int, bias: bool, isa: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    layer = layer_class(directions)(6, 13, 3, bias=bias, dtype=dtype, isa=isa, seed=1)
    x = rng.normal(size=(21, 5, 6)).astype(dtype)
    state = random_state(rng, (3 * directions, 5, 13), dtype)
    expected = results(
        reference.forward(x, state, layer.state_dict(), num_layers=3, num_directions=directions)
    )
    tolerance = 1e-14 if dtype is np.float64 else 2e-6
    for got, wanted in zip(results(layer(x, state)), expected, strict=True):
        assert np.abs(got - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("make", [LSTM, BiLSTM])
def test_no_steps(make: type, isa: str, dtype: type) -> None:
    layer = make(3, 5, 2, dtype=dtype, isa=isa)
    rows = 2 * layer.num_directions
    state = random_state(np.random.default_rng(0), (rows, 4, 5), dtype)
    y, last = layer(np.ones((0, 4, 3)), state)
    assert y.shape == (0, 4, 5 * layer.num_directions)
    assert_all_same_bits(list(last), list(state))
    assert not np.shares_memory(last[0], state[0])
    y, (h_n, c_n) = layer(np.ones((0, 3)))
    assert y.shape == (0, 5 * layer.num_directions)
    assert not h_n.any()
    assert not c_n.any()


@pytest.mark.parametrize("make", [LSTM, BiLSTM])
def test_no_sequences(make: type, isa: str, dtype: type) -> None:
    for batch_first in (False, True):
        layer = make(3, 5, 2, batch_first=batch_first, dtype=dtype, isa=isa)
        y, (h_n, c_n) = layer(np.ones((0, 7, 3) if batch_first else (7, 0, 3)))
        assert y.size == 0
        assert y.shape[2] == 5 * layer.num_directions
        assert h_n.shape == c_n.shape == (2 * layer.num_directions, 0, 5)


CONVERTED: list[Any] = [
    np.float16, np.float32, np.float64, np.longdouble, np.int8, np.uint8, np.int32, np.int64,
    np.uint64, np.bool_, ">f2", ">f4", ">f8", ">i4", "<f4",
]  # fmt: skip


@pytest.mark.parametrize("given", CONVERTED, ids=lambda d: np.dtype(d).str)
def test_inputs_are_converted(given: Any, isa: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    layer = LSTM(3, 9, dtype=dtype, isa=isa, seed=1)
    x = rng.integers(0, 2, size=(6, 4, 3)).astype(given)
    h_0, c_0 = (rng.integers(0, 2, size=(1, 4, 9)).astype(given) for _ in range(2))
    expected = results(layer(x.astype(dtype), (h_0.astype(dtype), c_0.astype(dtype))))
    assert_all_same_bits(results(layer(x, (h_0, c_0))), expected)


def test_lists_and_other_array_likes(dtype: type) -> None:
    class HasArray:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return x

    class HasDlpack:
        def __dlpack__(self, **options: Any) -> Any:
            return x.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return x.__dlpack_device__()

    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 4, 3)).astype(dtype)
    layer = LSTM(3, 9, dtype=dtype, seed=1)
    expected = results(layer(x))
    read_only = x.copy()
    read_only.flags.writeable = False
    unaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(dtype).reshape(x.shape)
    unaligned[...] = x
    for given in [
        x.tolist(), tuple(x), read_only, unaligned, HasArray(), HasDlpack(), memoryview(x),
    ]:  # fmt: skip
        assert_all_same_bits(results(layer(given)), expected)


def test_contiguous_input_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Spy:
        def run_plain(self, *_: Any) -> None:
            """Leave all calls to the general way."""

        run_unmerged = run_plain

        def forward(self, *arrays: Any) -> None:
            seen.append(arrays)

    layer = LSTM(3, 5, seed=0)
    monkeypatch.setattr(layer, "_weights", layer._weights._replace(model=Spy()))
    x = np.ones((4, 2, 3), np.float32)
    state = (np.ones((1, 2, 5), np.float32), np.ones((1, 2, 5), np.float32))
    out = np.zeros((4, 2, 5), np.float32)
    layer(x, state, out=out)
    assert [a is b for a, b in zip(seen[0], (x, *state, out), strict=False)] == [True] * 4
    layer(x[::2, ::-1])  # whole rows, any order
    assert np.shares_memory(seen[1][0], x)
    layer(x[:, 0])  # one sequence out of a batch
    assert np.shares_memory(seen[2][0], x)


def test_a_plain_call_allocates_its_results_alone() -> None:
    layer = LSTM(1000, 2, seed=0)
    x = np.ones((50, 4, 1000), np.float32)
    state = (np.ones((1, 4, 2), np.float32), np.ones((1, 4, 2), np.float32))
    out = np.zeros((50, 4, 2), np.float32)
    calls: list[Callable[[], Any]] = [
        lambda: layer(x),
        lambda: layer(x, state, out=out),
        lambda: layer(x[::2, ::-1]),  # whole rows, any order
        lambda: layer(x[:, 0]),  # one sequence out of a batch
    ]
    for call in calls:
        call()
        tracemalloc.start()
        call()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 10_000 < x[:, 0].nbytes / 10


def test_out(isa: str, dtype: type) -> None:
    x = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(dtype)
    for make in (LSTM, BiLSTM):
        layer = make(3, 5, 2, dtype=dtype, isa=isa, seed=1)
        y, _ = layer(x)
        out = np.full_like(y, np.nan)
        assert layer(x, out=out)[0] is out
        assert_same_bits(out, y)
        out = np.full_like(y[:, 0], np.nan)
        assert layer(x[:, 1], out=out)[0] is out
        assert_same_bits(out, y[:, 1].copy())


def test_inputs_are_left_alone() -> None:
    x = np.ones((3, 2, 3), np.float32)
    state = (np.ones((1, 2, 5), np.float32), np.ones((1, 2, 5), np.float32))
    _, last = LSTM(3, 5)(x, state)
    assert (x == 1).all()
    assert all((s == 1).all() for s in state)
    assert all(a.flags.writeable for a in last)


@pytest.mark.parametrize("directions", [1, 2])
def test_initial_parameters(directions: int, dtype: type) -> None:
    layer = layer_class(directions)(40, 50, 2, dtype=dtype, seed=3)
    arrays = layer.state_dict()
    names = ["weight_ih_l{}", "weight_hh_l{}", "bias_ih_l{}", "bias_hh_l{}"]
    suffixes = ["", "_reverse"][:directions]
    assert list(arrays) == [n.format(k) + s for k in range(2) for s in suffixes for n in names]
    assert arrays["weight_ih_l0"].shape == (200, 40)
    assert arrays["weight_ih_l1"].shape == (200, 50 * directions)
    assert arrays["weight_hh_l1"].shape == (200, 50)
    values = np.concatenate([a.ravel() for a in arrays.values()])
    assert values.dtype == dtype
    bound = 1 / np.sqrt(50)
    assert np.abs(values).max() <= bound
    # Uniform: the standard deviation of U(-b, b) is b / sqrt(3); the sample is large.
    assert abs(values.std() / (bound / np.sqrt(3)) - 1) < 0.02
    assert abs(values.mean()) < 0.02 * bound
    assert len(np.unique(values)) > 0.99 * values.size


def test_seeds() -> None:
    def first(seed: Any) -> bytes:
        return LSTM(3, 5, seed=seed).state_dict()["weight_ih_l0"].tobytes()

    assert first(1) == first(1) == first(np.random.default_rng(1))
    assert first(1) != first(2)
    assert first(None) != first(None)
    generator = np.random.default_rng(1)
    assert first(generator) != first(generator)


def test_forget_bias() -> None:
    plain = BiLSTM(3, 5, 2, seed=1).state_dict()
    layer = BiLSTM(3, 5, 2, seed=1, forget_bias=1.5)
    for name, array in layer.state_dict().items():
        if name.startswith("bias"):
            expected = plain[name].copy()
            expected[5:10] = 1.5 if "ih" in name else 0
            assert np.array_equal(array, expected)
        else:
            assert np.array_equal(array, plain[name])


def test_parameters_are_read_only() -> None:
    arrays = LSTM(3, 5).state_dict()
    for array in arrays.values():
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_state_dict_round_trip(dtype: type) -> None:
    source = BiLSTM(3, 5, 2, dtype=dtype, seed=1)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(dtype)
    target = BiLSTM(3, 5, 2, dtype=dtype, seed=2)
    before = target.state_dict()
    given = {name: array.copy() for name, array in source.state_dict().items()}
    target.load_state_dict(given)
    for array in given.values():
        array[...] = 9  # the layer has its own copy
    assert_all_same_bits(results(target(x)), results(source(x)))
    # Views handed out before hold what they held.
    assert np.array_equal(
        before["weight_ih_l0"], BiLSTM(3, 5, 2, dtype=dtype, seed=2).state_dict()["weight_ih_l0"]
    )


def test_load_state_dict_converts() -> None:
    layer = LSTM(2, 3, seed=1)
    arrays = {name: np.asarray(a, ">f8").tolist() for name, a in layer.state_dict().items()}
    other = LSTM(2, 3, seed=2)
    other.load_state_dict(arrays)
    x = np.ones((4, 2), np.float32)
    assert_all_same_bits(results(other(x)), results(layer(x)))


def test_both_biases_count() -> None:
    layer = LSTM(2, 3, dtype=np.float64, seed=1)
    arrays = {name: a.copy() for name, a in layer.state_dict().items()}
    arrays["bias_ih_l0"] = arrays["bias_ih_l0"] + arrays["bias_hh_l0"]
    arrays["bias_hh_l0"] = np.zeros(12)
    other = LSTM(2, 3, dtype=np.float64)
    other.load_state_dict(arrays)
    x = np.ones((4, 2))
    assert_all_same_bits(results(other(x)), results(layer(x)))


@pytest.mark.parametrize(
    ("make", "options", "expected"),
    [
        (LSTM, {}, "LSTM(3, 5, dtype=float32)"),
        (BiLSTM, {"num_layers": 2}, "BiLSTM(3, 5, num_layers=2, dtype=float32)"),
        (
            LSTM,
            {"bias": False, "batch_first": True, "dtype": float},
            "LSTM(3, 5, bias=False, batch_first=True, dtype=float64)",
        ),
    ],
)
def test_repr(make: type, options: dict[str, Any], expected: str) -> None:
    layer = make(3, 5, **options)
    assert repr(layer) == expected
    again = eval(expected.replace("float32", "'float32'").replace("float64", "'float64'"))
    assert repr(again) == expected


@pytest.mark.parametrize("directions", [1, 2])
def test_copies(directions: int, dtype: type) -> None:
    layer = layer_class(directions)(
        3, 5, 2, bias=False, batch_first=True, dtype=dtype, seed=1, isa="scalar"
    )
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(dtype)
    for made in [
        copy.deepcopy(layer),
        copy.copy(layer),
        *(
            pickle.loads(pickle.dumps(layer, protocol))
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
    ]:
        assert type(made) is type(layer)
        assert repr(made) == repr(layer)
        assert_all_same_bits(results(made(x)), results(layer(x)))
        # A copy has parameters of its own.
        made.load_state_dict({name: 0 * a for name, a in layer.state_dict().items()})
        assert not made(x)[0].any()
        assert layer(x)[0].any()


def test_pickle_holds_the_weights_once() -> None:
    layer = LSTM(64, 64)
    assert len(pickle.dumps(layer)) < 1.1 * sum(a.nbytes for a in layer.state_dict().values())


def test_instruction_set_is_chosen_anew_in_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LSTM(3, 5)
    monkeypatch.setenv("FASTLSTM_ISA", "scalar")
    assert copy.deepcopy(layer).isa == "scalar"
    monkeypatch.delenv("FASTLSTM_ISA")
    assert copy.deepcopy(LSTM(3, 5, isa="scalar")).isa == "scalar"
    monkeypatch.setenv("FASTLSTM_ISA", "scalar")
    assert pickle.loads(pickle.dumps(layer)).isa == "scalar"


def test_one_layer_serves_many_threads() -> None:
    layer = BiLSTM(5, 33, 2, seed=1)
    inputs = np.random.default_rng(0).normal(size=(8, 40, 3, 5)).astype(np.float32)
    expected = [results(layer(x)) for x in inputs]
    failures = []

    def work(index: int) -> None:
        for _ in range(50):
            got = results(layer(inputs[index]))
            if any(a.tobytes() != b.tobytes() for a, b in zip(got, expected[index], strict=True)):
                failures.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_native_byte_order_spelled_out(isa: str, dtype: Any) -> None:
    """newbyteorder makes a dtype that equals the native one, and has another buffer format."""
    spelled = np.dtype(dtype).newbyteorder("<" if sys.byteorder == "little" else ">")
    layer = LSTM(3, 5, dtype=dtype, isa=isa, seed=0)
    rng = np.random.default_rng(0)
    x, h_0, c_0 = (rng.normal(size=s).astype(dtype) for s in ((4, 2, 3), (1, 2, 5), (1, 2, 5)))
    expected, _ = layer(x, (h_0, c_0))
    out = np.empty((4, 2, 5), dtype).view(spelled)
    state = h_0.view(spelled), c_0.view(spelled)
    assert layer(x.view(spelled), state, out=out)[0] is out
    np.testing.assert_array_equal(out, expected)
    lengths = np.empty((4, 2, 5), dtype).view(spelled)
    layer(x.view(spelled), state, lengths=[4, 4], out=lengths)
    np.testing.assert_array_equal(lengths, expected)
    stream = layer.stream(2)
    stream.state = state
    np.testing.assert_array_equal(stream.push(x.view(spelled)), expected)
