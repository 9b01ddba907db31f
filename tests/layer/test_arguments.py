"""Bad input: the type of each error, and that its message names the argument."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM
from support.arrays import assert_same_bits
from support.layers import results
from support.not_real import NOT_REAL
from support.optional import require

pytestmark = pytest.mark.sanitized


@pytest.fixture
def layer() -> LSTM:
    return LSTM(3, 5, 2, seed=0)


X = np.ones((4, 2, 3), np.float32)
STATE = np.ones((2, 2, 5), np.float32)


@pytest.mark.parametrize(
    ("call", "by_position"),
    [
        (LSTM, {"input_size", "hidden_size", "num_layers"}),
        (BiLSTM, {"input_size", "hidden_size", "num_layers"}),
        (LSTM(3, 5), {"x", "state"}),
        (LSTM(3, 5).record, {"x", "state"}),
        (LSTM.from_arrays, {"weight_ih", "weight_hh", "bias_ih", "bias_hh", "options"}),
    ],
)
def test_arguments_have_names_and_options_need_them(
    call: Callable[..., Any], by_position: set[str]
) -> None:
    parameters = inspect.signature(call).parameters.values()
    assert not [p for p in parameters if p.kind == p.POSITIONAL_ONLY]
    assert {p.name for p in parameters if p.kind != p.KEYWORD_ONLY} == by_position


@pytest.mark.parametrize("make", [LSTM, BiLSTM])
@pytest.mark.parametrize("name", ["input_size", "hidden_size", "num_layers"])
@pytest.mark.parametrize("value", [0, -1, -(2**70), 2**70])
def test_sizes_out_of_range(make: type, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: got {value}, expected an integer from 1"):
        make(**{"input_size": 3, "hidden_size": 5, name: value})


@pytest.mark.parametrize("name", ["input_size", "hidden_size", "num_layers"])
@pytest.mark.parametrize("value", [1.0, "3", None, True, np.float32(2), [1], np.ones(2), 1j])
def test_sizes_that_are_no_integers(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{name}: got .* expected an integer"):
        LSTM(**{"input_size": 3, "hidden_size": 5, name: value})


def test_numpy_integers_are_sizes() -> None:
    layer = LSTM(np.int64(3), np.uint8(5), np.array(2))
    assert type(layer.input_size) is int
    assert repr(layer) == "LSTM(3, 5, num_layers=2, dtype=float32)"


@pytest.mark.parametrize(
    "sizes",
    [(2**40, 2**40), (1, 2**31), (2**62, 1), (1, sys.maxsize), (sys.maxsize, sys.maxsize, 1000)],
)
def test_sizes_whose_product_overflows(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^input_size, hidden_size, num_layers: .* address"):
        LSTM(*sizes)


def test_parameters_that_do_not_fit() -> None:
    # More than the 2^47 bytes that a process can address, so that no system says yes and swaps.
    with pytest.raises(MemoryError, match="Unable to allocate"):
        LSTM(2**23, 2**21)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"bias": 1}, TypeError),
        ({"bias": None}, TypeError),
        ({"batch_first": "yes"}, TypeError),
        ({"dtype": "int32"}, ValueError),
        ({"dtype": np.float16}, ValueError),
        ({"dtype": ">f4"}, ValueError),
        ({"dtype": None}, ValueError),
        ({"dtype": "no such"}, TypeError),
        ({"seed": -1}, ValueError),
        ({"seed": "x"}, TypeError),
        ({"forget_bias": "x"}, TypeError),
        ({"forget_bias": 1j}, TypeError),
        ({"forget_bias": [1.0]}, TypeError),
        ({"forget_bias": np.ones(2)}, TypeError),
        ({"forget_bias": np.complex64(1)}, TypeError),
        ({"forget_bias": np.timedelta64(1)}, TypeError),
        ({"clip": np.timedelta64(1, "D")}, TypeError),
        ({"seed": [True]}, TypeError),
        ({"seed": [[]]}, TypeError),
        ({"seed": [[1], [1, 2]]}, ValueError),
        ({"forget_bias": True}, TypeError),
        ({"forget_bias": np.nan}, ValueError),
        ({"forget_bias": 1e300}, ValueError),
        ({"forget_bias": 10**400}, ValueError),
        ({"dtype": {"names": ["a"]}}, TypeError),
        ({"isa": np.array(["avx2", "scalar"])}, ValueError),
        ({"isa": "mmx"}, ValueError),
        ({"isa": 3}, ValueError),
        ({"isa": b"scalar"}, ValueError),
    ],
    ids=str,
)
def test_option_values(options: dict[str, Any], error: type[Exception]) -> None:
    (name,) = options
    with pytest.raises(error, match=rf"^{name}: .*"):
        LSTM(3, 5, **options)


def test_numbers_that_a_precision_cannot_hold() -> None:
    assert LSTM(3, 5, clip=1e300, dtype="float64").options["clip"] == 1e300
    with pytest.raises(
        ValueError, match=r"^clip: got 1e\+300, expected one that float32 can hold$"
    ):
        LSTM(3, 5, clip=1e300)


@pytest.mark.parametrize("name", ["f4", "f8"])
def test_a_byte_order_that_is_spelled_out(name: str) -> None:
    native = np.dtype(name)
    spelled_out = native.newbyteorder("<" if sys.byteorder == "little" else ">")
    got, expected = (LSTM(3, 5, dtype=dtype, seed=0)(X)[0] for dtype in (spelled_out, native))
    assert_same_bits(got, expected)


def test_option_names() -> None:
    with pytest.raises(TypeError, match="bidirectional"):
        LSTM(3, 5, bidirectional=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        LSTM(3, 5, 1, True)  # type: ignore[misc]
    with pytest.raises(ValueError, match=r"^forget_bias: .* bias=False"):
        LSTM(3, 5, bias=False, forget_bias=1.0)


@pytest.mark.parametrize(
    "shape", [(), (3,), (4, 2, 4), (4, 2, 2), (4, 5), (1, 4, 2, 3), (4, 2, 0), (0,), (3, 4, 2)]
)
def test_x_of_a_wrong_shape(layer: LSTM, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^x: got .*expected \(T, B, 3\) or \(T, 3\)"):
        layer(np.ones(shape, np.float32))


@pytest.mark.parametrize("make", NOT_REAL)
def test_values_that_are_no_real_numbers(layer: LSTM, make: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"^x: "):
        layer(make(X.shape))
    with pytest.raises(TypeError, match=r"^h_0: "):
        layer(X, (make(STATE.shape), STATE))
    with pytest.raises(TypeError, match=r"^c_0: "):
        layer(X, (STATE, make(STATE.shape)))
    with pytest.raises(ValueError, match=r"weight_hh_l1: .*"):
        layer.load_state_dict({**layer.state_dict(), "weight_hh_l1": make((20, 5))})


def test_ragged_lists(layer: LSTM) -> None:
    with pytest.raises(ValueError, match=r"^x: cannot be made an array"):
        layer([[1.0, 2.0, 3.0], [1.0, 2.0]])


def test_array_likes_that_run_out_of_memory(layer: LSTM) -> None:
    class Large:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            raise MemoryError

    with pytest.raises(MemoryError):
        layer(Large())


def test_nothing_at_an_odd_address(layer: LSTM) -> None:
    """NumPy calls arrays without elements aligned wherever they are."""
    nothing = np.zeros(9, np.uint8)[1:1].view(np.float32).reshape(0, 2, 3)
    y, (h_n, _) = layer(nothing, out=np.zeros(9, np.uint8)[1:1].view(np.float32).reshape(0, 2, 5))
    assert y.shape == (0, 2, 5)
    assert h_n.shape == (2, 2, 5)


class Breaks:
    """An array-like whose conversion fails, as a tensor on another device does."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise RuntimeError("lives elsewhere")


class BreaksTwice:
    """Fails with an exception that can't be told."""

    class Error(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise self.Error


def test_array_likes_that_fail(layer: LSTM) -> None:
    with pytest.raises(TypeError, match=r"^x: cannot be made an array: lives elsewhere"):
        layer(Breaks())
    with pytest.raises(TypeError, match=r"^x: cannot be made an array: Error"):
        layer(BreaksTwice())


@pytest.mark.parametrize(
    "shape", [(2, 2, 4), (2, 1, 5), (1, 2, 5), (2, 5), (2, 2, 5, 1), (), (4, 5), (2, 3, 5)]
)
def test_states_of_a_wrong_shape(layer: LSTM, shape: tuple[int, ...]) -> None:
    wrong = np.ones(shape, np.float32)
    with pytest.raises(ValueError, match=r"^h_0: got shape .*, expected \(2, 2, 5\)"):
        layer(X, (wrong, STATE))
    with pytest.raises(ValueError, match=r"^c_0: got shape .*, expected \(2, 2, 5\)"):
        layer(X, (STATE, wrong))


def test_states_of_one_sequence_have_no_batch(layer: LSTM) -> None:
    with pytest.raises(ValueError, match=r"^h_0: got shape \(2, 1, 5\), expected \(2, 5\)"):
        layer(X[:, 0], (STATE[:, :1], STATE[:, :1]))


@pytest.mark.parametrize("state", [STATE, "hc", 3, {"h": 1}, iter([STATE, STATE])])
def test_state_that_is_no_pair(layer: LSTM, state: Any) -> None:
    with pytest.raises(TypeError, match=r"^state: "):
        layer(X, state)


@pytest.mark.parametrize("state", [(), (STATE,), [STATE] * 3])
def test_state_of_another_length(layer: LSTM, state: Any) -> None:
    with pytest.raises(ValueError, match=r"^state: got \d items"):
        layer(X, state)


def test_out_that_cannot_be_used(layer: LSTM) -> None:
    good = np.full((4, 2, 5), 7, np.float32)
    read_only = good.copy()
    read_only.flags.writeable = False
    buffer = np.zeros(4 * good.nbytes, np.uint8)
    unaligned = buffer[1 : good.nbytes + 1].view(np.float32).reshape(good.shape)
    for out, error in [
        (good.tolist(), TypeError),
        (good.astype(np.float64), TypeError),
        (good.astype(">f4"), TypeError),
        (good[:3], ValueError),
        (good.reshape(4, 10), ValueError),
        (np.asfortranarray(good), ValueError),
        (np.zeros((4, 2, 10), np.float32)[:, :, ::2], ValueError),
        (good[::-1], ValueError),
        (read_only, ValueError),
        (unaligned, ValueError),
    ]:
        with pytest.raises(error, match=r"^out: "):
            layer(X, out=out)
    assert (good == 7).all()


def test_out_that_overlaps_an_input() -> None:
    layer = LSTM(5, 5, seed=0)
    buffer = np.ones(1000, np.float32)
    out = buffer[:50].reshape(5, 2, 5)
    state = np.ones((1, 2, 5), np.float32)
    with pytest.raises(ValueError, match=r"^out: shares memory with x"):
        layer(out, out=out)
    with pytest.raises(ValueError, match=r"^out: shares memory with x"):
        layer(buffer[45:95].reshape(5, 2, 5), out=out)
    with pytest.raises(ValueError, match=r"^out: shares memory with x"):
        layer(buffer[20:120:2].reshape(5, 2, 5)[::-1], out=out)
    with pytest.raises(ValueError, match=r"^out: shares memory with h_0"):
        layer(np.ones((5, 2, 5), np.float32), (buffer[49:59].reshape(1, 2, 5), state), out=out)
    with pytest.raises(ValueError, match=r"^out: shares memory with c_0"):
        layer(np.ones((5, 2, 5), np.float32), (state, buffer[:10].reshape(1, 2, 5)), out=out)
    assert (buffer == 1).all()
    integers = np.ones((5, 2, 5), np.int32)
    with pytest.raises(ValueError, match=r"^out: shares memory with x"):
        layer(integers, out=integers.view(np.float32))
    # A neighbour in the same buffer is no overlap.
    x = buffer[50:100].reshape(5, 2, 5)
    assert layer(x, out=out)[0] is out


def test_results_too_large_to_address() -> None:
    layer = LSTM(1, 1000)
    for shape in [(2**55, 0, 1), (2**55, 1, 1), (1, 2**55, 1), (2**30, 2**25, 1), (2**55, 1)]:
        with pytest.raises(ValueError, match=r"^x: makes a result of shape"):
            layer(np.broadcast_to(np.float32(0), shape))
    for shape in [(2**45, 1, 1), (1, 2**45, 1), (2**45, 1)]:
        with pytest.raises(MemoryError):
            layer(np.broadcast_to(np.float32(0), shape))


def test_nan_and_infinity_propagate(isa: str, dtype: type) -> None:
    layer = LSTM(2, 9, dtype=dtype, isa=isa, seed=0)
    x = np.ones((6, 4, 2), dtype)
    clean = layer(x)[0]
    x[2, 1, 0] = np.nan
    x[3, 2, 1] = np.inf
    y, (h_n, c_n) = layer(x)
    assert_same_bits(np.ascontiguousarray(y[:, [0, 3]]), np.ascontiguousarray(clean[:, [0, 3]]))
    assert_same_bits(y[:2].copy(), clean[:2])
    assert np.isnan(y[2:, 1]).all()
    assert np.isnan(h_n[:, 1]).all()
    assert np.isnan(c_n[:, 1]).all()
    assert np.isfinite(y[:, 2]).all()  # infinite pre-activations saturate
    c_0 = np.full((1, 4, 9), np.inf, dtype)
    y, (_, c_n) = layer(np.ones((6, 4, 2), dtype), (np.zeros_like(c_0), c_0))
    assert (c_n == np.inf).all()
    assert np.isfinite(y).all()  # tanh of infinity is 1


def test_load_state_dict_names_every_problem() -> None:
    layer = LSTM(3, 5, 2, seed=0)
    before = {name: array.copy() for name, array in layer.state_dict().items()}
    y = layer(X)[0]
    arrays: dict[Any, Any] = dict(layer.state_dict())
    del arrays["bias_hh_l1"], arrays["weight_ih_l0"]
    arrays["weight_ih_l0_reverse"] = 1
    arrays[7] = 1
    arrays["weight_hh_l0"] = np.ones((5, 20))
    arrays["bias_ih_l0"] = np.ones(20, complex)
    arrays["bias_hh_l0"] = np.zeros(20)
    with pytest.raises(ValueError, match=r"^arrays: ") as error:
        layer.load_state_dict(arrays)
    message = str(error.value)
    assert "missing weight_ih_l0, bias_hh_l1" in message
    assert "unexpected weight_ih_l0_reverse, 7" in message
    assert "weight_hh_l0 has shape (5, 20), expected (20, 5)" in message
    assert "bias_ih_l0: got values of dtype complex128" in message
    after = layer.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert_same_bits(layer(X)[0], y)


def test_load_state_dict_of_very_many_names(layer: LSTM) -> None:
    with pytest.raises(ValueError, match=r"^arrays: .*, and 99900 more$") as error:
        layer.load_state_dict(dict(layer.state_dict()) | {f"n{i}": 0 for i in range(100_000)})
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("arrays", [None, [], "weights", [("weight_ih_l0", 1)]])
def test_load_state_dict_of_something_else(layer: LSTM, arrays: Any) -> None:
    with pytest.raises(TypeError, match=r"^arrays: "):
        layer.load_state_dict(arrays)


def test_failed_calls_leave_the_layer_usable(layer: LSTM) -> None:
    expected = results(layer(X))
    for bad in ["no", np.ones((4, 2, 4)), np.ones((4, 2, 3), complex)]:
        with pytest.raises((TypeError, ValueError)):
            layer(bad)
    for a, b in zip(results(layer(X)), expected, strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize(
    "name", ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "dtype", "isa"]
)
def test_options_cannot_be_changed(layer: LSTM, name: str) -> None:
    before = getattr(layer, name)
    with pytest.raises(AttributeError):
        setattr(layer, name, before)


def test_overflowing_conversions_become_infinite_without_a_word(layer: LSTM) -> None:
    x = np.full((4, 2, 3), 1e300)
    with np.errstate(all="raise"):
        y, _ = layer(x)
        layer.load_state_dict(
            {name: 1e300 * a.astype(float) for name, a in layer.state_dict().items()}
        )
    assert y.shape == (4, 2, 5)
    assert np.isinf(layer.state_dict()["weight_ih_l0"]).all()


@pytest.mark.parametrize("layer", [LSTM, BiLSTM])
def test_pythons_errors_about_arguments_name_the_layer(layer: type[LSTM | BiLSTM]) -> None:
    made: Any = layer(3, 5)
    name = layer.__name__
    for call, method in (
        (lambda: layer(3), "__init__"),  # type: ignore[call-arg]
        (lambda: layer(3, 5, hiden=4), "__init__"),  # type: ignore[call-arg]
        (lambda: made(), "__call__"),
        (lambda: made.record(np.ones((4, 3)), foo=1), "record"),
    ):
        with pytest.raises(TypeError, match=rf"^{name}\.{method}\(\) "):
            call()

    class Mine(layer):  # type: ignore[misc,valid-type]
        def __init__(self, size: int) -> None:
            super().__init__(size, 4)

    assert Mine(3)(np.ones((2, 3)))[0].shape == (2, 4 * made.num_directions)
    assert inspect.signature(layer) == inspect.signature(LSTM)


def test_dtypes_of_torch() -> None:
    torch = require("torch")
    assert LSTM(3, 5, dtype=torch.float64).dtype == np.float64
    assert LSTM(3, 5, dtype=torch.float32).dtype == np.float32
    with pytest.raises(ValueError, match=r"^dtype: got torch\.float16, expected float32 or"):
        LSTM(3, 5, dtype=torch.float16)


def test_a_state_for_the_other_layout_says_so() -> None:
    x, h = np.ones((4, 2, 3), np.float32), np.ones((1, 4, 5), np.float32)
    for batch_first in (False, True):
        layer = LSTM(3, 5, batch_first=batch_first)
        given, state = (x.swapaxes(0, 1), h) if batch_first else (x, h)
        words = (
            rf"h_0: got shape \(1, 4, 5\), expected \(1, 2, 5\); with batch_first={not batch_first}"
        )
        with pytest.raises(ValueError, match=rf"^{words} x .* would have 4 sequences$"):
            layer(given, (state, state))
    with pytest.raises(ValueError, match=r"expected \(1, 2, 5\)$"):
        LSTM(3, 5)(x, (h[:, :3], h[:, :3]))
