"""Traces: the bits of the call, the reference's numbers, and the equations between the arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM, Trace, _core, _tracing
from support.arrays import assert_same_bits, relative_difference
from support.option_rows import CELL_OPTIONS, ROWS, Case
from support.quantized_layers import quantized_on
from support.traced import by_equations, by_reference
from support.variant_cases import covering

# Scalar kernels are compared with the others by the layers' own tests.
pytestmark = pytest.mark.slow(isa="scalar")

CELLS = covering(CELL_OPTIONS)
cells = pytest.mark.parametrize("row", CELLS[::4], ids=range(0, len(CELLS), 4))
rows = pytest.mark.parametrize("row", ROWS[::4], ids=range(0, len(ROWS), 4))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tape of a step or two at a time."""
    monkeypatch.setattr(_tracing, "_CHUNK", 100)


def traced(case: Case, **options: Any) -> Trace:
    x, state, keywords = case.arguments()
    return case.layer.trace(x, state, **keywords, **options)


@rows
def test_a_trace_has_the_bits_of_the_call(
    row: dict[str, Any], isa: str, dtype: type, small_chunks: None
) -> None:
    case = Case(row, dtype, isa)
    trace = traced(case, names="all")
    for name, array in case.named(trace.y, trace.state).items():
        assert_same_bits(np.ascontiguousarray(array), np.ascontiguousarray(case.call()[name]))
    for name, array in trace.arrays.items():
        assert array.dtype == dtype
        there = np.isnan(array).any(axis=-1)
        assert not (there != ~trace.present).any(), name


@rows
def test_the_last_layers_hidden_states_are_its_outputs(row: dict[str, Any], dtype: type) -> None:
    row = row | {"return_sequences": True}
    case = Case(row | ({"kind": "concat"} if row["kind"] not in ("LSTM", "reverse") else {}), dtype)
    trace = traced(case)
    last = np.concatenate(trace.h[-case.layer.num_directions :], axis=-1)
    assert_same_bits(np.where(np.isnan(last), dtype(0), last), np.ascontiguousarray(trace.y))


@cells
@pytest.mark.parametrize("kind", ["LSTM", "concat"])
def test_a_trace_is_the_references(
    row: dict[str, Any], kind: str, isa: str, dtype: type, small_chunks: None
) -> None:
    case = Case(row | {"kind": kind, "layout": "batch", "T": 4, "B": 3}, dtype, isa)
    trace = traced(case, names="all")
    expected = by_reference(case.layer, case.x, case.state)
    for name, array in expected.items():
        assert relative_difference(trace.arrays[name], array) <= 20 * case.tolerance, name
    for part in ("x", "h"):
        got = trace.w_x if part == "x" else trace.u_h
        of = [weight for name, weight in case.layer.state_dict().items()
              if name.startswith("weight_ih" if part == "x" else "weight_hh")]  # fmt: skip
        for index, weight in enumerate(of):
            below = case.x if index < case.layer.num_directions else None
            if part == "h":
                below = trace.h_before[index]
            if below is not None:
                assert relative_difference(got[index], below @ weight.T) <= case.tolerance


@cells
@pytest.mark.parametrize("kind", ["LSTM", "concat"])
def test_the_equations_hold_to_the_bit(row: dict[str, Any], kind: str, isa: str) -> None:
    layout = "lengths resets" if kind == "LSTM" else "batch"
    case = Case(row | {"kind": kind, "layout": layout, "T": 6, "B": 4}, np.float32, isa)
    trace = traced(case, names="all")
    with np.errstate(invalid="ignore"):
        expected = by_equations(trace, case.layer)
    there = trace.present
    for name, array in expected.items():
        assert_same_bits(trace.arrays[name][:, there] + 0, array[:, there] + 0)  # no -0


def test_the_equations_hold_in_float64(isa: str) -> None:
    layer = LSTM(3, 17, num_layers=2, dtype=np.float64, seed=0, isa=isa)
    x = np.random.default_rng(0).normal(size=(30, 5, 3))
    trace = layer.trace(x, names=["c_before", "z_i", "z_f", "z_g", "z_o", *"ifgoch"])
    ulp = np.finfo(np.float64).eps
    np.testing.assert_allclose(
        trace.c, trace.f * trace.c_before + trace.i * trace.g, rtol=0, atol=8 * ulp
    )
    np.testing.assert_allclose(trace.h, trace.o * np.tanh(trace.c), rtol=8 * ulp, atol=ulp)
    for gate in "ifo":
        sigmoid = 1 / (1 + np.exp(-trace.arrays[f"z_{gate}"]))
        np.testing.assert_allclose(trace.arrays[gate], sigmoid, rtol=8 * ulp)
    np.testing.assert_allclose(trace.g, np.tanh(trace.z_g), rtol=8 * ulp)


@pytest.mark.parametrize("kind", ["LSTM", "reverse", "concat"])
@pytest.mark.parametrize("layout", ["lengths", "resets", "offsets resets"])
def test_each_piece_is_traced_as_if_alone(kind: str, layout: str, small_chunks: None) -> None:
    row = dict.fromkeys(CELL_OPTIONS) | CELLS[3] | {"zoneout_h": 0.0, "zoneout_c": 0.0}
    case = Case(row | {"kind": kind, "layout": layout, "T": 7, "B": 5}, np.float32)
    trace = traced(case, names="all")
    arrays = {name: [case.back(one) for one in array] for name, array in trace.arrays.items()}
    D = case.layer.num_directions
    for piece in case.pieces():
        # Whether h_0 counts: of a forward direction, and of a reverse one.
        counts = [piece.is_last] if case.layer.reverse else [piece.keeps_h_0, piece.is_last]
        state = tuple(np.array(s[:, piece.b]) for s in case.state)
        for d in range(D):
            for part in state:
                part[d::D] *= counts[d]
        if D == 2 and not (piece.is_first and piece.is_last):
            continue  # layers above see both directions, which go on elsewhere
        steps = slice(piece.begin, piece.end)
        alone = case.layer.trace(case.x[steps, piece.b], state, names="all")
        for name, array in alone.arrays.items():
            for got, expected in zip(arrays[name], array, strict=True):
                assert_same_bits(np.ascontiguousarray(got[steps, piece.b]) + 0, expected + 0)


@pytest.mark.parametrize("directions", [1, 2])
def test_what_is_chosen_is_what_all_has_there(
    directions: int, tmp_path: Path, small_chunks: None
) -> None:
    layer = (LSTM, BiLSTM)[directions - 1](3, 9, num_layers=3, proj_size=4, batch_first=True)
    x = np.random.default_rng(0).normal(size=(5, 12, 3))
    every = layer.trace(x, lengths=[12, 4, 0, 7, 12], names="all")
    some = layer.trace(x, lengths=[12, 4, 0, 7, 12], names=("h", "f", "w_x"), layers=[2, 0],
                       units=[8, 1], steps=slice(3, 9), to=tmp_path / "new" / "folder")  # fmt: skip
    assert some.names == ("f", "h", "w_x")
    assert [row.layer for row in some.rows] == [2] * directions + [0] * directions
    rows_ = [layer_ * directions + d for layer_ in (2, 0) for d in range(directions)]
    assert_same_bits(np.array(some.f), every.f[rows_][..., 3:9, :][..., [8, 1]])
    assert_same_bits(np.array(some.h), every.h[rows_][..., 3:9, :])
    columns = [gate * 9 + unit for gate in range(4) for unit in (8, 1)]
    assert_same_bits(np.array(some.w_x), every.w_x[rows_][..., 3:9, :][..., columns])
    assert_same_bits(some.y, every.y)
    assert_same_bits(some.present, every.present[:, 3:9])
    assert isinstance(some.f, np.memmap)
    assert_same_bits(np.load(tmp_path / "new" / "folder" / "f.npy"), np.array(some.f))
    assert list(some.steps) == [3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("bits", [8, 16, 24])
@pytest.mark.parametrize("isa", _core.quantized_isas())
@pytest.mark.parametrize("row", CELLS[::7], ids=range(0, len(CELLS), 7))
def test_a_quantised_layers_trace_has_the_bits_of_its_call(
    row: dict[str, Any], isa: str, bits: int, small_chunks: None
) -> None:
    for kind, layout in (("LSTM", "resets"), ("concat", "lengths"), ("reverse", "batch")):
        case = Case(row | {"kind": kind, "layout": layout, "T": 5, "B": 3}, np.float32)
        case.layer = quantized_on(isa, case.layer, bits)
        trace = traced(case, names="all")
        for name, array in case.named(trace.y, trace.state).items():
            assert_same_bits(np.ascontiguousarray(array), np.ascontiguousarray(case.call()[name]))
        there, cell = trace.present, case.layer.cell
        # One step of the reference from the states that the kernels had gives the ones they made.
        if not cell.zoneout_c:
            assert_same_bits(trace.c_new[:, there] + 0, trace.c[:, there] + 0)
        if not (cell.zoneout_h or case.layer.proj_size):
            assert_same_bits(trace.h_wide[:, there] + 0, trace.h[:, there] + 0)
        exact = 0.02 if bits == 8 else 2e-4
        if not cell.cell_clip and not cell.zoneout_c:
            made = trace.f * trace.c_before + trace.i * trace.g
            np.testing.assert_allclose(trace.c[:, there], made[:, there], atol=exact)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bits", [None, 16])
def test_a_stream_goes_on_where_its_trace_ends(batch_first: bool, bits: int | None) -> None:
    layer: Any = LSTM(3, 5, num_layers=2, batch_first=batch_first, return_sequences=False, seed=0)
    layer = layer if bits is None else fastlstm.quantize(layer, bits)
    x = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    stream, other = layer.stream(x.shape[0 if batch_first else 1]), None
    other = layer.stream(stream.batch_size)
    for _ in range(3):
        expected = other.push(x)
        trace = stream.trace(x, layers=-1, names="h")
        assert_same_bits(trace.y, expected)
        assert_same_bits(trace.h[0], expected)
        for got, state in zip(stream.state, other.state, strict=True):
            assert_same_bits(got, state)
    one, two = layer.stream(), layer.stream()
    assert_same_bits(one.trace(x[0]).y, two.push(x[0]))
    assert one.trace(x[0]).f.shape == (2, 6, 5)
    layer_copy = layer.stream()
    with pytest.raises(TypeError, match=r"unexpected argument 'lengths'"):
        layer_copy.trace(x[0], lengths=[3])
    assert not layer_copy.state[0].any()


def test_a_trace_needs_no_generator_and_drops_nothing() -> None:
    layer = LSTM(3, 5, 2, dropout=0.5, recurrent_dropout=0.5, weight_dropout=0.5, zoneout_h=0.1)
    x = np.ones((4, 2, 3), np.float32)
    assert_same_bits(layer.trace(x).y, layer(x)[0])


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3), (0, 3)])
def test_nothing_is_traced_of_nothing(shape: tuple[int, ...], tmp_path: Path) -> None:
    trace = BiLSTM(3, 5).trace(np.zeros(shape), names="all", to=tmp_path)
    assert trace.f.shape == (2, *shape[:-1], 5)
    assert np.isnan(trace.time_constants()).all()
    assert "0 steps exist" in trace.summary()
    assert trace.largest_preactivations() == []


@pytest.mark.parametrize("options", [{"units": []}, {"layers": []}, {"steps": slice(0)}], ids=str)
def test_a_choice_may_be_empty(options: dict[str, Any]) -> None:
    layer, x = BiLSTM(3, 5, 2, seed=0), np.ones((4, 2, 3), np.float32)
    trace = layer.trace(x, names="all", **options)
    assert trace.f.size == 0
    assert_same_bits(trace.y, layer(x)[0])
    assert (
        trace.still().shape == trace.time_constants().shape == (trace.f.shape[0], trace.f.shape[-1])
    )
    assert trace.largest_preactivations() == []
    assert "steps exist" in trace.summary()


def test_a_trace_in_files_outlives_the_next_in_their_folder(tmp_path: Path) -> None:
    layer, x = LSTM(3, 50, seed=0), np.ones((100, 3), np.float32)
    trace = layer.trace(x, to=tmp_path)
    assert layer.trace(-x[:2], to=tmp_path).f.shape == (1, 2, 50)
    for name, array in layer.trace(x).arrays.items():
        np.testing.assert_array_equal(trace.arrays[name], array)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"names": "gates"}, ValueError, "names: got 'gates', expected some of i, f, g, o, c, h"),
        ({"names": 3}, TypeError, "names: got 3, expected some of"),
        ({"names": ["z_f"]}, ValueError, "names: got 'z_f'"),
        ({"units": 5}, ValueError, "units: got 5 to 5, expected different numbers from -5 to 4"),
        ({"units": [1, 1]}, ValueError, "units: got some twice"),
        ({"units": [0.5]}, TypeError, r"units: got \[0.5\], expected different numbers"),
        ({"layers": "last"}, TypeError, "layers: got 'last', expected different numbers"),
        ({"layers": [0, -1]}, ValueError, "layers: got some twice"),
        ({"steps": slice("a")}, TypeError, "steps: got slice"),
        ({"steps": -5}, ValueError, "steps: got -5 to -5, expected different numbers from -4"),
        ({"lengths": [5, 5]}, ValueError, "lengths: got 5 to 5"),
    ],
)
def test_wrong_arguments_are_named(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    layer = LSTM(3, 5, coupled_gates=True)
    with pytest.raises(error, match=message):
        layer.trace(np.zeros((4, 2, 3)), **options)
