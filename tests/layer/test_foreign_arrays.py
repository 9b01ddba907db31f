"""Arrays as other libraries hold them: the bits of the same numbers in NumPy, or a clear error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM
from fastlstm.training import Network, Sequences
from support.arrays import assert_same_bits
from support.optional import require

SHORT = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "float6_e2m3fn", "int4"]


@pytest.fixture
def layer() -> LSTM:
    return LSTM(3, 5, seed=0)


def table(seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(4, 3)).astype(np.float32)


# What is taken


@pytest.mark.parametrize("name", SHORT)
def test_short_numbers_of_ml_dtypes(layer: LSTM, name: str) -> None:
    ml_dtypes = require("ml_dtypes")
    x = (3 * table()).astype(getattr(ml_dtypes, name))
    expected = layer(np.array(x.tolist(), np.float64))[0]  # by way of Python's numbers
    assert_same_bits(layer(x)[0], expected)
    assert_same_bits(layer(list(x))[0], expected)
    assert_same_bits(layer.stream().push(x), expected)


def test_bfloat16_of_jax_is_that_of_torch(layer: LSTM) -> None:
    torch, jnp = require("torch"), require("jax.numpy")
    x = torch.from_numpy(table()).bfloat16()
    theirs = jnp.asarray(x.float().numpy(), jnp.bfloat16)
    assert_same_bits(layer(theirs)[0], layer(x.float().numpy())[0])
    assert_same_bits(layer(x)[0], layer(theirs)[0])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn", "float32", "float64"])
@pytest.mark.parametrize("needs_gradient", [False, True])
def test_tensors_of_torch(layer: LSTM, dtype: str, needs_gradient: bool) -> None:
    torch = require("torch")
    plain = torch.from_numpy(table()).to(getattr(torch, dtype))
    x = plain.detach().clone().requires_grad_(needs_gradient)
    expected = layer(plain.double().numpy())[0]
    assert_same_bits(layer(x)[0], expected)
    assert_same_bits(layer(torch.nn.Parameter(x))[0], expected)
    assert_same_bits(layer(list(x))[0], expected)
    assert_same_bits(layer(x, lengths=None, out=np.empty((4, 5), np.float32))[0], expected)
    assert_same_bits(layer([list(x)])[0], layer(plain.double().numpy()[np.newaxis])[0])
    stream = layer.stream()
    assert_same_bits(np.stack([stream.step(x_t).copy() for x_t in x]), expected)
    assert_same_bits(layer.record(x)[0], expected)


def test_views_with_the_negative_bit(layer: LSTM) -> None:
    torch = require("torch")
    x = table()
    view = torch.view_as_complex(torch.from_numpy(np.stack([x, x], -1))).conj().imag
    assert view.is_neg()
    assert_same_bits(layer(view)[0], layer(-x)[0])


def test_states_and_gradients(layer: LSTM) -> None:
    torch = require("torch")
    h = torch.full((1, 5), 0.3).bfloat16().requires_grad_()
    c = torch.nn.Parameter(torch.full((1, 5), -0.7))
    pair = h.detach().float().numpy(), c.detach().numpy()
    assert_same_bits(layer(table(), (h, c))[0], layer(table(), pair)[0])
    stream = layer.stream()
    stream.state = (h[:, None], c[:, None])
    assert_same_bits(stream.push(table()), layer(table(), pair)[0])
    dy = torch.ones(4, 5, requires_grad=True)
    ours, plain = (layer.record(table())[2].backward(each) for each in (dy, np.ones((4, 5))))
    assert_same_bits(ours.x, plain.x)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_parameters(dtype: str) -> None:
    torch = require("torch")
    module = torch.nn.LSTM(3, 5, bidirectional=True).to(getattr(torch, dtype))
    wide = {name: p.detach().double().numpy() for name, p in module.named_parameters()}
    loaded = BiLSTM(3, 5, dtype="float64")
    loaded.load_state_dict(dict(module.named_parameters()))
    for name, array in loaded.state_dict().items():
        assert_same_bits(array, wide[name])
    single = torch.nn.LSTM(3, 5).to(getattr(torch, dtype))
    made = LSTM.from_arrays(*single.parameters())
    assert made.dtype == (np.float64 if dtype == "float64" else np.float32)
    assert_same_bits(
        made.state_dict()["weight_hh_l0"],
        single.weight_hh_l0.detach().double().numpy().astype(made.dtype),
    )
    loaded.load_parameters(torch.cat([p.flatten() for p in module.parameters()]))
    assert_same_bits(loaded.state_dict()["bias_hh_l0"], wide["bias_hh_l0"])


def test_arrays_of_flax_in_bfloat16() -> None:
    ml_dtypes = require("ml_dtypes")
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in ((20, 3), (20, 5), (20,))]
    short = [array.astype(ml_dtypes.bfloat16) for array in arrays]
    made = LSTM.from_arrays(*short)
    assert made.dtype == np.float32
    x = table()
    assert_same_bits(made(x)[0], LSTM.from_arrays(*(a.astype(np.float32) for a in short))(x)[0])


def test_lengths_offsets_and_resets(layer: LSTM) -> None:
    torch, pandas = require("torch"), require("pandas")
    x = np.stack([table(), table(1)], 1)
    expected = layer(x, lengths=[1, 4])[0]
    for lengths in (torch.tensor([1, 4]), pandas.Series([1, 4], dtype="Int64")):
        assert_same_bits(layer(x, lengths=lengths)[0], expected)
    flags = [True, False, True, False]
    for resets in (torch.tensor(flags), pandas.array(flags, dtype="boolean")):
        assert_same_bits(layer(table(), resets=resets)[0], layer(table(), resets=flags)[0])
    assert_same_bits(
        layer(table(), offsets=torch.tensor([0, 1, 4]))[0], layer(table(), offsets=[0, 1, 4])[0]
    )
    with pytest.raises(ValueError, match=r"^lengths: .* series 'n' has no value in row 1"):
        layer(x, lengths=pandas.Series([1, None], dtype="Int64", name="n"))


def test_training() -> None:
    torch = require("torch")
    x, y = np.stack([table(), table(1)], 1), np.ones((4, 2, 1), np.float32)
    given = torch.from_numpy(x).requires_grad_(), torch.from_numpy(y).bfloat16()
    network = Network(LSTM(3, 5, seed=0), 1, seed=0)
    assert_same_bits(network(Sequences(*given).x), network(x))
    vector = torch.from_numpy(network.parameters.copy()).requires_grad_()
    network.load_parameters(vector)
    assert_same_bits(network.parameters, vector.detach().numpy())


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_dtypes_of_others(name: str, tmp_path: Any) -> None:
    torch = require("torch")
    assert LSTM(3, 5, dtype=getattr(torch, name)).dtype == name
    fastlstm.save(LSTM(3, 5), tmp_path / "model.npz")
    assert fastlstm.load(tmp_path / "model.npz", dtype=getattr(torch, name)).dtype == name
    assert LSTM(3, 5, dtype=getattr(require("jax.numpy"), name)).dtype == name
    for wrong in (torch.float16, torch.bfloat16, f"torch.{name}", type(name, (), {})):
        with pytest.raises((TypeError, ValueError), match=r"^dtype: got .*float32 or float64$"):
            LSTM(3, 5, dtype=wrong)


# Tables


def frames() -> dict[str, Callable[[], Any]]:
    """Tables of the numbers of `table`."""
    columns = {name: table()[:, k] for k, name in enumerate("abc")}

    def pandas(dtype: Any) -> Callable[[], Any]:
        return lambda: require("pandas").DataFrame(columns).astype(dtype)

    return {
        "pandas": pandas("float32"),
        "pandas, float64": pandas("float64"),
        "pandas, nullable": pandas("Float32"),
        "pandas, one nullable": pandas({"b": "Float64"}),
        "pandas, sparse": lambda: pandas(require("pandas").SparseDtype("float32"))(),
        "pandas, arrow": lambda: (require("pyarrow"), pandas("float[pyarrow]")())[1],
        "polars": lambda: require("polars").DataFrame(columns),
        "pyarrow": lambda: require("pyarrow").table(columns),
    }


@pytest.mark.parametrize("kind", frames())
def test_tables(layer: LSTM, kind: str) -> None:
    assert_same_bits(layer(frames()[kind]())[0], layer(table())[0])


def test_columns_of_several_kinds(layer: LSTM) -> None:
    pandas, polars = require("pandas"), require("polars")
    columns = {"a": [0.5, 1.5, 2.5, np.nan], "b": [1, 2, 3, 4], "c": [True, False, True, True]}
    expected = layer(np.array(list(columns.values()), np.float64).T)[0]
    assert_same_bits(layer(pandas.DataFrame(columns))[0], expected)
    assert_same_bits(layer(pandas.DataFrame(columns).astype({"b": "Int64"}))[0], expected)
    assert_same_bits(layer(polars.DataFrame(columns))[0], expected)
    twice = pandas.DataFrame(table(), columns=["a", "a", "a"])
    assert_same_bits(layer(twice)[0], layer(table())[0])
    row = pandas.DataFrame(table()).astype("Float32").iloc[1]
    assert_same_bits(layer.stream().step(row), layer.stream().step(table()[1]))


def test_missing_values_are_named(layer: LSTM) -> None:
    pandas, polars, pyarrow = require("pandas"), require("polars"), require("pyarrow")
    columns = {"a": [1, 2, 3, 4], "b": [1, 2, None, None], "c": [1, 2, 3, 4]}
    expected = r"^x: .*: column 'b' has no value in row 2 \(from 0\), the first of 2 such rows$"
    for frame in (
        pandas.DataFrame(columns).astype("Int64"),
        pandas.DataFrame(columns).astype("Float64"),
        pandas.DataFrame(columns).astype("double[pyarrow]"),
        polars.DataFrame(columns),
        pyarrow.table(columns),
    ):
        with pytest.raises(ValueError, match=expected):
            layer(frame)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
@pytest.mark.parametrize("kind", ["text", "date", "duration", "decimal", "object"])
def test_columns_that_are_no_numbers_are_named(layer: LSTM, library: str, kind: str) -> None:
    import datetime
    import decimal

    values: dict[str, Any] = {
        "text": "x",
        "date": datetime.datetime(2020, 1, 1),
        "duration": datetime.timedelta(1),
        "decimal": decimal.Decimal(1),
        "object": [1.0],
    }
    columns = {"a": [1.0] * 4, "when": [values[kind]] * 4, "c": [1] * 4}
    module = require(library)
    frame = (module.table if library == "pyarrow" else module.DataFrame)(columns)
    with pytest.raises(TypeError, match=r"^x: .*column 'when' holds .*, expected real numbers$"):
        layer(frame)
    with pytest.raises(TypeError, match=r"^x: .*column 'when' holds"):
        Sequences(frame, np.ones((4, 1)))


# Sequences of different lengths


def test_packed_sequences_say_how_to_go_on(layer: LSTM) -> None:
    torch = require("torch")
    module = torch.nn.LSTM(3, 5)
    ours = fastlstm.weights.from_torch(module)
    sequences = [torch.from_numpy(table(k)[:n]) for k, n in enumerate((2, 4, 3))]
    packed = torch.nn.utils.rnn.pack_sequence(sequences, enforce_sorted=False)
    with pytest.raises(TypeError, match=r"^x: .*PackedSequence.*lengths=lengths") as error:
        ours(packed)
    # What it says, done.
    names = {"x": packed, "torch": torch, "layer": ours}
    exec(str(error.value).partition("PackedSequence: ")[2].partition(" undoes")[0], names)
    y, _ = ours(names["x"], lengths=names["lengths"])
    with torch.inference_mode():
        theirs = torch.nn.utils.rnn.pad_packed_sequence(module(packed)[0])[0].numpy()
    np.testing.assert_allclose(y, theirs, atol=2e-6)


@pytest.mark.parametrize("kind", ["arrays", "lists", "tensors", "object array"])
def test_lists_of_unequal_sequences_say_how_to_go_on(layer: LSTM, kind: str) -> None:
    x: Any = [table()[:4], table(1)[:2], table(2)[:3]]
    expected = np.concatenate([layer(each)[0] for each in x])
    if kind == "lists":
        x = [each.tolist() for each in x]
    elif kind == "tensors":
        x = [require("torch").from_numpy(each) for each in x]
    elif kind == "object array":
        x = np.array([*x, None], dtype=object)[:-1]
    with pytest.raises(
        ValueError, match=r"^x: got 3 sequences of 2 to 4 steps.*lengths=$"
    ) as error:
        layer(x)
    call = str(error.value).partition("join them, ")[2].partition(", or pad")[0]
    y, _ = eval(call, {"layer": layer, "np": np, "x": x})
    assert_same_bits(y, expected)
    with pytest.raises(ValueError, match="offsets="):
        layer.record(x)


def test_nested_tensors_say_how_to_go_on(layer: LSTM) -> None:
    torch = require("torch")
    sequences = [torch.zeros(4, 3), torch.zeros(2, 3)]
    nested = torch.nested.nested_tensor(sequences, layout=torch.jagged)
    with pytest.raises(TypeError, match=r"^x: .*nested tensor: .*lengths="):
        layer(nested)
    with pytest.raises(TypeError, match=r"^x: .*Sparse"):
        layer(torch.zeros(4, 3).to_sparse())


def test_bits_are_not_taken_for_numbers(layer: LSTM) -> None:
    class Tensor:
        """As some libraries hand out bfloat16."""

        dtype = "paddle.bfloat16"

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.ones((4, 3), np.uint16)

    with pytest.raises(TypeError, match=r"^x: .*bfloat16 come as uint16"):
        layer(Tensor())
