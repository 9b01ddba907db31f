"""`fastlstm.xarray.apply`: the answers of a loop over places, in memory and over blocks of Dask."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM
from fastlstm.distributed import Predictor
from fastlstm.training import Embedding, HeadSpec, Network
from support.arrays import assert_same_bits
from support.engine_cases import killing
from support.optional import require
from support.processes import run_python

pytestmark = pytest.mark.engines

T, LAT, LON = 20, 4, 3
FEATURES = ["rain", "temp", "height"]
NETWORK = Network(LSTM(3, 8, seed=0), 1, features=FEATURES, seed=1)


@pytest.fixture
def xr() -> Any:
    return require("xarray")


@pytest.fixture
def apply(xr: Any) -> Any:
    from fastlstm.xarray import apply

    return apply


def grid(xr: Any) -> Any:
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {
            "rain": (("time", "lat", "lon"), rng.normal(size=(T, LAT, LON)), {"units": "mm"}),
            "temp": (("lat", "time", "lon"), rng.normal(size=(LAT, T, LON))),
            "height": (("lat", "lon"), rng.normal(size=(LAT, LON))),  # at all times
        },
        {
            "time": np.arange("2000-01-01", "2000-01-21", dtype="datetime64[D]"),
            "lat": ("lat", np.arange(LAT) / 2, {"units": "degrees_north"}),
            "lon": np.arange(LON),
            "name": (("lat", "lon"), np.full((LAT, LON), "x")),
        },
    )


def inputs(dataset: Any) -> np.ndarray:
    """x (T, LAT, LON, I)."""
    arrays = [dataset[name].broadcast_like(dataset["rain"]) for name in FEATURES]
    return np.stack([array.transpose("time", "lat", "lon").values for array in arrays], axis=-1)


def loop(model: Any, dataset: Any, **options: Any) -> np.ndarray:
    """Place by place, with the model itself."""
    predictor = Predictor(model, **options)
    x = inputs(dataset)
    rows = [[predictor(x[:, i, j]) for j in range(LON)] for i in range(LAT)]
    found = np.array(rows)
    return np.moveaxis(found, 2, 0) if predictor.each_step else found


CHUNKS = [
    None,
    {"lat": 2, "lon": 1},
    {"time": 7, "lat": 3},
    {"time": 1},
]


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_bits_of_a_loop(xr: Any, apply: Any, chunks: dict[str, int] | None) -> None:
    dataset = grid(xr)
    expected = loop(NETWORK, dataset)[..., 0]
    if chunks is not None:
        require("dask.array")
        dataset = dataset.chunk(chunks)
    flow = apply(NETWORK, dataset, time="time", name="flow", attrs={"units": "m3 s-1"})
    assert flow.dims == ("time", "lat", "lon")
    assert flow.name == "flow"
    assert flow.attrs == {"units": "m3 s-1", "missing": "propagate"}
    assert flow.lat.attrs == {"units": "degrees_north"}
    assert set(flow.coords) == {"time", "lat", "lon", "name"}
    if chunks is not None:
        assert flow.chunks == dataset.rain.transpose("time", "lat", "lon").chunks
    assert_same_bits(flow.compute().values, expected)


def test_what_needs_whole_sequences(xr: Any, apply: Any) -> None:
    require("dask.array")
    dataset = grid(xr)
    last = Network(LSTM(3, 8, seed=0), 2, targets=["u", "v"], each_step=False, seed=0)
    for model in (BiLSTM(3, 4, seed=0), last):
        expected = loop(model, dataset)
        whole = apply(model, dataset.chunk({"lat": 2}), time="time", features=FEATURES)
        assert_same_bits(whole.compute().values, expected)
        with pytest.raises(
            ValueError, match=r"has 3 chunks along 'time', .*chunk\(\{'time': -1\}\)"
        ):
            apply(model, dataset.chunk({"time": 7}), time="time", features=FEATURES)
    assert whole.dims == ("lat", "lon", "target")
    assert whole.target.values.tolist() == ["u", "v"]


@pytest.mark.parametrize("chunks", [None, {"time": 6, "lat": 2}], ids=str)
def test_missing_values(xr: Any, apply: Any, chunks: dict[str, int] | None) -> None:
    dataset = grid(xr)
    gaps = np.random.default_rng(1).random((T, LAT, LON)) < 0.2
    gaps[:, 1, 1] = True  # the sea
    gaps[15:, 2, 2] = True  # a series that ends
    dataset["rain"] = dataset.rain.where(~xr.DataArray(gaps, dims=("time", "lat", "lon")))
    expected = loop(NETWORK, dataset, missing="skip")[..., 0]
    assert (np.isnan(expected) == gaps).all()
    after = loop(NETWORK, dataset)[..., 0]
    assert (np.isnan(after) == np.logical_or.accumulate(gaps)).all()
    if chunks is not None:
        require("dask.array")
        dataset = dataset.chunk(chunks)
    found = apply(NETWORK, dataset, time="time", missing="skip")
    assert found.attrs["missing"] == "skip"
    assert_same_bits(found.compute().values, expected)
    assert_same_bits(apply(NETWORK, dataset, time="time").compute().values, after)
    with pytest.raises(ValueError, match="x: got NaN in"):
        apply(NETWORK, dataset, time="time", missing="raise").compute()


def test_axes_of_answers(xr: Any, apply: Any) -> None:
    dataset = grid(xr)
    quantiles = Network(LSTM(3, 8, seed=0), 2, loss="pinball", quantiles=[0.1, 0.5, 0.9])
    found = apply(quantiles, dataset, time="time", features=FEATURES)
    assert found.dims == ("time", "lat", "lon", "target", "quantile")
    assert found["quantile"].values.tolist() == [0.1, 0.5, 0.9]
    assert_same_bits(found.values, loop(quantiles, dataset))
    kinds = HeadSpec(classes=["dry", "wet"], loss="cross_entropy")
    heads = Network(LSTM(3, 8, seed=0), heads={"level": HeadSpec(1), "kind": kinds})
    found = apply(heads, dataset, time="time", features=FEATURES, head="kind")
    assert set(found.values.ravel()) <= {"dry", "wet"}
    predictor = Predictor(heads, method="predict_proba", missing="skip")
    found = apply(predictor, dataset, time="time", features=FEATURES)
    assert found.dims == ("time", "lat", "lon", "class")
    assert found.attrs == {"missing": "skip"}
    layer = LSTM(3, 5, batch_first=True, seed=0)
    assert apply(layer, dataset, time="time", features=FEATURES).sizes["unit"] == 5
    tokens = Network(LSTM(4, 5, seed=0), 1, embedding=Embedding(9, 4), seed=0)
    words = xr.DataArray(np.arange(6).reshape(2, 3), dims=("place", "time")).to_dataset(name="w")
    expected = tokens.predict(words.w.values.T)[..., 0]
    assert_same_bits(apply(tokens, words, time="time", features="w").values, expected)


def test_one_place_and_a_data_array(xr: Any, apply: Any) -> None:
    dataset = grid(xr)
    expected = loop(NETWORK, dataset)[..., 0]
    one = apply(NETWORK, dataset.isel(lat=1, lon=2), time="time")
    assert_same_bits(one.values, expected[:, 1, 2])
    array = xr.DataArray(inputs(dataset), dims=("time", "lat", "lon", "input"))
    assert_same_bits(apply(NETWORK, array, time="time", features="input").values, expected)
    require("dask.array")
    array = array.transpose("input", "lat", "time", "lon").chunk(input=2, time=7, lat=3)
    made = apply(NETWORK, array, time="time", features="input")
    assert len(made.chunks[0]) == 3
    assert_same_bits(made.compute().values, expected)
    with pytest.raises(ValueError, match="features: got 'time', which is the dimension of time"):
        apply(NETWORK, array, time="time", features="time")
    bad = array.isel(input=slice(2))
    with pytest.raises(ValueError, match="features: got 2 inputs, expected 3"):
        apply(NETWORK, bad, time="time", features="input")


def test_inputs_along_a_dimension_have_names(xr: Any, apply: Any) -> None:
    dataset = grid(xr)
    expected = apply(NETWORK, dataset, time="time").values
    names = ["temp", *(name for name in dataset.data_vars if name != "temp")]
    stacked = dataset[[name for name in names if name in FEATURES]].to_dataarray("input")
    assert list(stacked["input"].values) != FEATURES
    assert_same_bits(apply(NETWORK, stacked, time="time", features="input").values, expected)
    stacked["input"] = ["x", "y", "z"]
    with pytest.raises(ValueError, match="features: there is no input 'rain' along 'input', there"):
        apply(NETWORK, stacked, time="time", features="input")


def test_time_ascends(xr: Any, apply: Any) -> None:
    dataset = grid(xr)
    dataset["time"] = np.datetime64("2020-01-01") + np.arange(dataset.sizes["time"])
    expected = apply(NETWORK, dataset, time="time")
    backwards = dataset.isel(time=slice(None, None, -1))
    twice = dataset.isel(time=[0, 1, 1, 2])
    for wrong in (backwards, twice, backwards.drop_indexes("time")):
        with pytest.raises(ValueError, match="time: 'time' does not ascend throughout"):
            apply(NETWORK, wrong, time="time")
    assert apply(NETWORK, backwards.sortby("time"), time="time").identical(expected)
    none = apply(NETWORK, dataset.isel(time=slice(0)), time="time")
    assert none.shape == (0, *expected.shape[1:])


@pytest.mark.parametrize("labels", [list, np.bytes_, "beside"], ids=str)
def test_names_of_inputs_however_they_are_kept(xr: Any, apply: Any, labels: Any) -> None:
    """Bytes, as netCDF has them, or beside a coordinate of numbers, as of bands."""
    dataset = grid(xr)
    expected = apply(NETWORK, dataset, time="time").values
    stacked = dataset[["temp", "height", "rain"]].to_dataarray("input")
    names = stacked["input"].values
    if labels == "beside":
        stacked = stacked.assign_coords(input=[4, 5, 6], band=("input", names))
        stacked = stacked.assign_coords(unit=("input", ["degC", "m", "mm"]))
    elif labels is np.bytes_:
        stacked["input"] = names.astype("S")
    assert_same_bits(apply(NETWORK, stacked, time="time", features="input").values, expected)
    twice = xr.concat([stacked, stacked[:1]], "input")
    with pytest.raises(
        ValueError, match="features: there are 2 inputs 'temp' along 'input', there"
    ):
        apply(NETWORK, twice, time="time", features="input")


def test_values_as_a_file_holds_them(xr: Any, apply: Any) -> None:
    """Not decoded, by their attributes, which stay where somebody decoded by hand."""
    dataset = grid(xr)
    packed = dataset.assign(rain=(dataset.rain * 100).astype("int16"))
    packed.rain.attrs |= {"scale_factor": 0.01, "add_offset": 0.0, "_FillValue": -999}
    with pytest.raises(ValueError, match="features: 'rain' holds int16, to be scaled by its attri"):
        apply(NETWORK, packed, time="time")
    by_hand = packed.assign(rain=(packed.rain * 0.01).assign_attrs(packed.rain.attrs))
    expected = apply(NETWORK, by_hand, time="time")
    decoded = apply(NETWORK, xr.decode_cf(packed), time="time")
    np.testing.assert_allclose(decoded, expected, rtol=1e-4)
    filled = dataset.assign(rain=dataset.rain.astype(np.float32))
    filled.rain[3, 2, 1] = 1e20
    for attrs in ({"missing_value": 1e20}, {"_FillValue": np.float32(1e20)}):
        filled.rain.attrs = {"missing_value": [-999.0, np.nan], **attrs}
        with pytest.raises(ValueError, match=r"features: got 1e\+20 in an input, which its attr"):
            apply(NETWORK, filled, time="time")
    require("dask.array")
    with pytest.raises(ValueError, match=r"features: got 1e\+20 in an input, which its attr"):
        apply(NETWORK, filled.chunk(time=3), time="time").compute()
    filled["rain"] = filled.rain.where(filled.rain < 1e20)
    assert "missing_value" in filled.rain.attrs
    assert_same_bits(apply(NETWORK, filled, time="time").values, loop(NETWORK, filled)[..., 0])


def test_a_predictor_has_its_own_options(apply: Any, xr: Any) -> None:
    predictor = Predictor(NETWORK, missing="skip")
    assert apply(predictor, grid(xr), time="time", missing="skip").attrs == {"missing": "skip"}
    with pytest.raises(ValueError, match="missing: got 'raise' beside a Predictor's own, 'skip'"):
        apply(predictor, grid(xr), time="time", missing="raise")


def test_one_answer_for_one_place(xr: Any, apply: Any) -> None:
    require("dask.array")
    last = Network(LSTM(3, 8, seed=0), 1, features=FEATURES, each_step=False, seed=0)
    dataset = grid(xr)
    expected = loop(last, dataset)[1, 2, 0]
    one = dataset.isel(lat=1, lon=2)
    for each in (one, one.chunk()):
        found = apply(last, each, time="time")
        assert found.dims == ()
        assert_same_bits(found.compute().values, expected)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"time": "hour"}, "time: got 'hour', expected a dimension of the inputs: 'lat', 'lon'"),
        ({"features": ["rain", "snow", "temp"]}, "features: there is no variable 'snow', there"),
        (
            {"features": ["temp", "rain", "height"]},
            "the model's own names in another order, ",
        ),
        ({"features": ["rain"]}, "features: got 1 inputs, expected 3 as the model has"),
        ({"head": "x"}, "head: got 'x', expected one of ''"),
        ({"model": LSTM(3, 5)}, "features: got None, expected the names of the inputs"),
        ({"dataset": np.ones(3)}, "dataset: got ndarray, expected an xarray.Dataset or DataArray"),
        ({"features": ["name", "rain", "temp"]}, "features: 'name' holds <U1, expected numbers"),
        ({"missing": "fill"}, "missing: got 'fill', expected one of propagate"),
    ],
)
def test_wrong_arguments(xr: Any, apply: Any, options: dict[str, Any], error: str) -> None:
    given = {"model": NETWORK, "dataset": grid(xr).reset_coords("name"), "time": "time", **options}
    with pytest.raises((TypeError, ValueError), match=error):
        apply(given.pop("model"), given.pop("dataset"), **given)


def test_dimensions_that_clash(xr: Any, apply: Any) -> None:
    dataset = grid(xr).rename(lat="unit")
    with pytest.raises(ValueError, match="dataset: has a dimension 'unit', as the answers have"):
        apply(LSTM(3, 5), dataset, time="time", features=FEATURES)


def test_without_xarray() -> None:
    code = "import sys; sys.modules['xarray'] = None\n"
    code += "import fastlstm.xarray as x; x.apply(1, 2, time=3)"
    assert 'fastlstm.xarray needs xarray: pip install "fastlstm[dask]"' in run_python(code).stderr


@pytest.mark.slow
def test_a_worker_that_is_killed(xr: Any, apply: Any, tmp_path: Path) -> None:
    distributed = require("distributed")
    dataset = grid(xr)
    expected = loop(NETWORK, dataset)[..., 0]
    predictor = killing(tmp_path / "killed")(NETWORK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"
            ) as cluster,
            distributed.Client(cluster),
        ):
            found = apply(predictor, dataset.chunk(lat=1, lon=1), time="time").compute()
    assert (tmp_path / "killed").exists()
    assert_same_bits(found.values, expected)


def co2_by_year(xr: Any) -> Any:
    """Weekly CO2 at Mauna Loa, with its gaps: a series for each year, the first and last short."""
    frame = require("statsmodels.api").datasets.co2.load_pandas().data
    years = sorted(set(frame.index.year))
    weeks = np.full((53, len(years)), np.nan)
    for i, year in enumerate(years):
        series = frame.co2[frame.index.year == year].to_numpy()
        weeks[: len(series), i] = series
    season = np.cos(2 * np.pi * np.arange(53) / 52)
    return xr.Dataset(
        {
            "co2": (("week", "year"), weeks - 350, {"units": "ppm", "long_name": "above 350 ppm"}),
            "season": (("week",), season),
        },
        {"year": years},
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["netcdf", "zarr"])
def test_gappy_data_from_file_to_file(xr: Any, apply: Any, tmp_path: Path, kind: str) -> None:
    """Chunks of years, and of weeks, on two workers of Dask, as a loop in one process."""
    distributed = require("distributed")
    require("netCDF4" if kind == "netcdf" else "zarr")
    source, target = str(tmp_path / "co2"), str(tmp_path / "answers")
    dataset = co2_by_year(xr)
    gaps = np.isnan(dataset.co2.values)
    assert 80 < gaps.sum() < 400
    network = Network(LSTM(2, 16, seed=0), 1, features=["co2", "season"], seed=1)
    chunks = {"week": 20, "year": 8}
    with (
        warnings.catch_warnings(),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster),
    ):
        warnings.simplefilter("ignore")
        if kind == "netcdf":
            dataset.to_netcdf(source)
            opened = xr.open_dataset(source, chunks=chunks, engine="netcdf4")
        else:
            dataset.chunk(chunks).to_zarr(source)
            opened = xr.open_zarr(source)
        with opened:
            made = apply(network, opened, time="week", missing="skip", attrs={"units": "ppm"})
            assert len(made.chunks[0]) == 3
            if kind == "netcdf":
                made.to_netcdf(target, engine="netcdf4")
            else:
                made.to_dataset().to_zarr(target)
    with xr.open_dataset(target, engine="netcdf4" if kind == "netcdf" else "zarr") as answers:
        found = answers.prediction.transpose("week", "year")
        assert found.units == "ppm"
        assert (found.year.values == dataset.year.values).all()
        values = found.values
    for i in range(dataset.sizes["year"]):
        there = ~gaps[:, i]
        x = np.stack([dataset.co2.values[:, i], dataset.season.values], axis=-1)[there]
        expected = np.full(53, np.nan, np.float32)
        expected[there] = network.predict(x[:, None])[:, 0, 0]
        assert_same_bits(values[:, i], expected)
