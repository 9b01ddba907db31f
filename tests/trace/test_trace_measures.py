"""What traces tell of units, and traces in files and tables."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM, Trace
from support.arrays import assert_same_bits
from support.optional import require

LENGTHS = [12, 5, 0, 9]


def x_and_resets(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, resets = rng.normal(size=(12, 4, 3)), rng.random((12, 4)) < 0.15
    return (x.swapaxes(0, 1), resets.swapaxes(0, 1)) if layer.batch_first else (x, resets)


@pytest.fixture(params=["LSTM", "reverse", "BiLSTM", "batch_first"])
def trace(request: pytest.FixtureRequest) -> Trace:
    layer: Any = {
        "LSTM": LSTM(3, 6, 2, seed=0),
        "reverse": LSTM(3, 6, 2, seed=0, reverse=True),
        "BiLSTM": BiLSTM(3, 6, 2, seed=0),
        "batch_first": BiLSTM(3, 6, 2, seed=0, batch_first=True),
    }[request.param]
    x, resets = x_and_resets(layer)
    return layer.trace(5 * x, lengths=LENGTHS, resets=resets, names="all")


def by_time(trace: Trace, array: np.ndarray) -> np.ndarray:
    """(T, B, ...) of one row."""
    return array.swapaxes(0, 1) if trace.time_axis == 1 else array


def test_saturation_is_the_share_of_steps(trace: Trace) -> None:
    saturated = trace.saturation(0.3, 0.7)
    assert saturated.thresholds == (0.3, 0.7)
    for gate in "ifog":
        values = trace.arrays[gate][:, trace.present]  # (R, N, H)
        low = values < (-0.7 if gate == "g" else 0.3)
        np.testing.assert_allclose(saturated.low[gate], low.mean(axis=1))
        np.testing.assert_allclose(saturated.high[gate], (values > 0.7).mean(axis=1))
    with pytest.raises(ValueError, match=r"low, high: got 0.9 and 0.9"):
        trace.saturation(0.9, 0.9)


def test_time_constants_follow_from_the_mean_of_f(trace: Trace) -> None:
    expected = -1 / np.log(trace.f[:, trace.present].mean(axis=1, dtype=np.float64))
    np.testing.assert_allclose(trace.time_constants(), expected)


def test_forever_and_never() -> None:
    layer = LSTM(1, 2, gate_activation="relu", bias=True, seed=0)
    vector = np.zeros_like(layer.parameters)
    layer.named_views(vector)["bias_ih_l0"][2:4] = [1, 0]  # of f
    layer.load_parameters(vector)
    trace = layer.trace(np.ones((5, 1)))
    assert list(trace.time_constants()[0]) == [np.inf, 0]
    assert trace.still().all()


def test_retention_is_the_mean_product_of_f(trace: Trace) -> None:
    lags = [0, 3, 1, 3, 30]
    got = trace.retention(lags)
    present, begins = by_time(trace, trace.present), by_time(trace, trace.begins)
    for row, one in enumerate(trace.rows):
        f = by_time(trace, trace.f[row]).astype(np.float64)
        for lag, mean in zip(lags, got[:, row], strict=True):
            products = [
                np.prod(f[t : t + lag, b] if one.is_reverse else f[t + 1 : t + lag + 1, b], axis=0)
                for b in range(4)
                for t in range(12 - lag)
                if present[t : t + lag + 1, b].all() and not begins[t + 1 : t + lag + 1, b].any()
            ]
            if products:
                np.testing.assert_allclose(mean, np.mean(products, axis=0))
            else:
                assert np.isnan(mean).all()


def test_retention_is_what_is_left_of_an_initial_state() -> None:
    layer = LSTM(3, 6, cell_activation="relu", seed=0, dtype=np.float64)
    vector = layer.parameters.copy()
    for name, view in layer.named_views(vector).items():
        view[12:18] = -9 if name == "bias_ih_l0" else 0  # g = 0: nothing is added
    layer.load_parameters(vector)
    x = np.random.default_rng(0).normal(size=(7, 3))
    c_0 = np.ones((1, 6))
    trace = layer.trace(x, (0 * c_0, c_0))
    np.testing.assert_allclose(trace.c[0, -1], trace.retention([6])[0, 0] * trace.f[0, 0])


def test_lags_are_several(trace: Trace) -> None:
    with pytest.raises(TypeError, match="lags: got 3, expected some numbers of steps"):
        trace.retention(3)  # type: ignore[arg-type]


def test_a_cut_trace_has_no_products() -> None:
    trace = LSTM(3, 6, seed=0).trace(np.ones((9, 3)), steps=[0, 1, 3])
    with pytest.raises(ValueError, match="steps: the kept ones do not follow each other"):
        trace.retention([1])


def test_units_that_never_move() -> None:
    layer = LSTM(3, 6, seed=0)
    vector = layer.parameters.copy()
    for view in layer.named_views(vector).values():
        view[[2, 14]] = 0  # of unit 2 the gates i and g: 1/2 and 0
    layer.load_parameters(vector)
    trace = layer.trace(np.random.default_rng(0).normal(size=(9, 3)))
    assert list(np.flatnonzero(trace.still()[0])) == [2]
    assert trace.still(10.0, "h").all()


def test_the_largest_preactivations(trace: Trace) -> None:
    found = trace.largest_preactivations(7)
    every = np.concatenate(
        [np.abs(trace.arrays[f"z_{g}"][:, trace.present]).ravel() for g in "ifgo"]
    )
    np.testing.assert_array_equal(np.abs([one.value for one in found]), np.sort(every)[:-8:-1])
    D = len({row.direction for row in trace.rows})
    for one in found:
        array = trace.arrays[f"z_{one.gate}"][one.layer * D + one.direction]
        assert by_time(trace, array)[one.step, one.sequence, one.unit] == np.float32(one.value)
    with pytest.raises(ValueError, match="names: 'z_i' was not kept, only f"):
        LSTM(1, 1).trace([[1.0]], names="f").largest_preactivations()


@pytest.mark.parametrize("key", ["magnitude", "largest", "smallest"])
def test_where_a_unit_fires(trace: Trace, key: str) -> None:
    unit = trace.unit(3, layer=1)
    row = [one[:2] for one in trace.rows].index((1, 0))
    assert_same_bits(np.array(unit.c), np.array(trace.c[row, ..., 3]))
    values = by_time(trace, trace.h[row])[..., 3]
    sign = {"magnitude": np.abs, "largest": np.positive, "smallest": np.negative}[key]
    found = unit.top(4, key=key)
    best = np.sort(sign(values[~np.isnan(values)]))[:-5:-1]
    np.testing.assert_array_equal(sign(np.array([one.value for one in found])), best)
    for one in found:
        assert values[one.step, one.sequence] == np.float32(one.value)
        assert one.item == 0


def test_where_a_unit_fires_in_a_data_set() -> None:
    layer = LSTM(3, 6, 2, seed=0)
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(n, 3)).astype(np.float32) for n in (5, 30, 1, 12)]
    unit = layer.trace(data[0]).unit(4, 1)
    found = unit.top(6, iter(data), of="c")
    expected = [
        (abs(c), item, step)
        for item, x in enumerate(data)
        for step, c in enumerate(layer.trace(x).c[1, :, 4])
    ]
    best = sorted(expected, reverse=True)[:6]
    assert [(abs(one.value), one.item, one.step) for one in found] == best
    padded = {"x": np.stack([data[1], 9 * data[1]], axis=1), "lengths": [30, 0]}
    assert {one.sequence for one in unit.top(99, [padded])} == {0}
    with pytest.raises(ValueError, match="key: got 'most', expected magnitude, largest, smallest"):
        unit.top(key="most")
    with pytest.raises(ValueError, match="unit, layer, direction: got 9, 0, 0, expected one"):
        layer.trace(data[0]).unit(9)
    projected = LSTM(3, 6, proj_size=2).trace(data[0]).unit(0)
    with pytest.raises(ValueError, match="of: got 'h', which is not of units"):
        projected.top()


def test_a_summary_has_a_line_for_each_row(trace: Trace) -> None:
    first, head, *lines = trace.summary().split("\n")
    of = f"{len(trace.rows)} directions of layers, 12 steps of 4 sequences, 6 units"
    assert first == f"{of}; 26 steps exist"
    assert head.split("  ")[0] == "layer"
    assert [line.split()[0] for line in lines] == [row.name for row in trace.rows]
    assert repr(trace).startswith("Trace(i, f, g, o, c, h, z_i")


def test_a_trace_says_what_it_has_not(trace: Trace) -> None:
    with pytest.raises(AttributeError, match="w_y: not in this trace, which has i, f, g, o, c, h"):
        _ = trace.w_y
    with pytest.raises(AttributeError, match="w_x: not kept of units"):
        _ = trace.unit(0).w_x
    assert {"f", "z_i", "summary"} <= set(dir(trace))
    assert copy.copy(trace).f is trace.f
    assert_same_bits(copy.deepcopy(trace).f, trace.f)


def assert_same_trace(got: Trace, trace: Trace) -> None:
    assert got.names == trace.names
    for name, array in trace.arrays.items():
        assert_same_bits(got.arrays[name], array)
    for name in ("steps", "units", "present", "begins"):
        np.testing.assert_array_equal(getattr(got, name), getattr(trace, name))
    for name in ("rows", "time_axis", "cell", "hidden_size", "output_size"):
        assert getattr(got, name) == getattr(trace, name)
    for a, b in zip(got.state, trace.state, strict=True):
        assert_same_bits(a, b)
    assert got.summary() == trace.summary()


@pytest.mark.parametrize("ending", [".npz", ".zarr"])
def test_what_is_saved_is_loaded(trace: Trace, ending: str, tmp_path: Path) -> None:
    if ending == ".zarr":
        require("zarr")
    path = tmp_path / f"trace{ending}"
    trace.save(path)
    got = Trace.load(str(path))
    assert_same_trace(got, trace)
    assert_same_bits(got.y, trace.y)
    with pytest.raises(
        ValueError, match="data: got some, but a trace that was loaded has no layer"
    ):
        got.unit(0).top(1, [np.ones((2, 3))])


def test_a_long_trace_is_few_files(tmp_path: Path) -> None:
    require("zarr")
    LSTM(3, 6, seed=0).trace(np.ones((500, 2, 3))).save(tmp_path / "trace.zarr")
    assert sum(path.is_file() for path in (tmp_path / "trace.zarr").rglob("*")) < 50


def test_a_pair_of_outputs_and_arrays_in_files_are_saved(tmp_path: Path) -> None:
    layer = BiLSTM(3, 6, merge_mode=None, seed=0)
    trace = layer.trace(np.ones((4, 3)), to=tmp_path / "arrays")
    trace.save(tmp_path / "trace.npz")
    got = Trace.load(tmp_path / "trace.npz")
    assert_same_trace(got, trace)
    for a, b in zip(got.y, trace.y, strict=True):
        assert_same_bits(a, b)


def test_other_files_are_refused(trace: Trace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path: got '.*x.csv', expected one that ends in .npz or"):
        trace.save(str(tmp_path / "x.csv"))
    np.savez(tmp_path / "other.npz", i=np.ones(3))
    with pytest.raises(ValueError, match="is no trace"):
        Trace.load(tmp_path / "other.npz")
    for content in (b"", b"PK", b"\x93NUMPY"):
        (tmp_path / "other.npz").write_bytes(content)
        with pytest.raises(ValueError, match="is no trace"):
            Trace.load(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError):
        Trace.load(tmp_path / "missing.npz")


def test_a_dataset_has_names_on_its_axes(trace: Trace) -> None:
    require("xarray")
    table = trace.to_xarray()
    last = {"row": trace.rows[-1].name, "step": 3, "sequence": 1, "unit": 2}
    got = table.f.sel({name: value for name, value in last.items() if name != "sequence"})
    expected = by_time(trace, trace.f[-1])[3, 1, 2]
    assert float(got.isel(sequence=1)) == float(expected)
    assert table.w_x.dims[-1] == "gate_unit"
    assert int(table.present.sum()) == sum(LENGTHS)
    assert list(table.layer.values) == [row.layer for row in trace.rows]
    alone = LSTM(3, 6, proj_size=2).trace(np.ones((4, 3))).to_xarray()
    assert alone.h.dims == ("row", "step", "output")


def test_a_data_frame_has_a_line_for_each_step_of_each_unit(trace: Trace) -> None:
    require("pandas")
    table = trace.to_pandas()
    assert len(table) == len(trace.rows) * sum(LENGTHS) * 6
    assert not table.isna().any().any()
    assert "w_x" not in table.columns
    for row, one in enumerate(trace.rows):
        expected = by_time(trace, trace.c[row])[4, 3, 5]
        assert table.loc[(one.name, 3, 4, 5), "c"] == expected


def test_a_trace_of_no_layer_has_no_lines() -> None:
    require("pandas")
    table = LSTM(3, 6, seed=0).trace(np.ones((4, 3)), layers=[]).to_pandas()
    assert table.shape == (0, 6)
    assert table.index.names == ["row", "sequence", "step", "unit"]


def test_a_trace_is_pickled_but_for_its_layer(trace: Trace) -> None:
    got = pickle.loads(pickle.dumps(trace))
    assert_same_trace(got, trace)
