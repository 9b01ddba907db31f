"""The bundled series, the split, the features, the baselines and what training draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fastlstm.data import MODELS, SeaSurfaceTemperature, baselines, load_sst, model_path
from fastlstm.data.features import (
    GAP_LENGTH,
    HELD_OUT_START,
    HORIZONS,
    TRAINING_END,
    VALIDATION_MONTHS,
    Scaling,
    forecast_features,
    gap_masks,
    gapfill_features,
    gapfill_guess,
)
from fastlstm.data.models import load_model
from fastlstm.data.training import Mixtures, random_gaps, save_model
from support.optional import require

pytestmark = pytest.mark.wheel

SST = load_sst()


Where = int | slice | NDArray[np.bool_]


def changed(sst: SeaSurfaceTemperature, where: Where) -> SeaSurfaceTemperature:
    temperature = sst.temperature.copy()
    temperature[where] += 3.0
    return replace(sst, temperature=temperature)


# series


@pytest.mark.parametrize(
    ("date", "celsius"),
    [
        ("1950-01", 23.11),
        ("1950-12", 21.80),
        ("1982-12", 25.89),
        ("1997-12", 27.08),
        ("1998-03", 29.24),
        ("2010-12", 22.07),
    ],
)
def test_series_has_the_published_values(date: str, celsius: float) -> None:
    assert SST.temperature[SST.index(date)] == celsius


def test_series_is_complete() -> None:
    assert len(SST) == 732 == len(SST.year) == len(SST.month)
    assert np.isfinite(SST.temperature).all()
    assert SST.temperature.min() > 18.0
    assert SST.temperature.max() < 30.0
    assert (np.diff(SST.dates) == np.timedelta64(1, "M")).all()
    assert str(SST.dates[0]) == "1950-01"
    assert str(SST.dates[-1]) == "2010-12"
    np.testing.assert_array_equal(SST.year[[0, 11, 12, 731]], [1950, 1950, 1951, 2010])
    np.testing.assert_array_equal(SST.month[[0, 11, 12, 731]], [1, 12, 1, 12])


def test_series_is_the_one_of_statsmodels() -> None:
    datasets = require("statsmodels.datasets")
    table = datasets.elnino.load_pandas().data.to_numpy()
    np.testing.assert_array_equal(SST.temperature, table[:, 1:].reshape(-1))
    np.testing.assert_array_equal(SST.year[::12], table[:, 0])


def test_index() -> None:
    assert SST.index("1950-01") == 0
    assert SST.index("2011-01") == 732
    for date in ("1949-12", "2011-02"):
        with pytest.raises(ValueError, match=date):
            SST.index(date)


# models

SEA_SURFACE = [name for name in MODELS if name.startswith("sst")]


@pytest.mark.parametrize("name", SEA_SURFACE)
def test_model_files_are_small_and_plain(name: str) -> None:
    path = model_path(name)
    assert path.stat().st_size < 50_000
    constants = {"climatology", "scale", "damping"}
    with np.load(path, allow_pickle=False) as arrays:
        assert constants < set(arrays.files)
        for key in arrays.files:
            assert arrays[key].dtype == (np.float64 if key in constants else np.float32)
            assert np.isfinite(arrays[key]).all()


def test_model_path_names_the_models() -> None:
    with pytest.raises(ValueError, match="name must be one of sst_forecast, sst_gapfill"):
        model_path("sst")


# split


def test_split_is_in_order() -> None:
    assert SST.index(TRAINING_END) + VALIDATION_MONTHS == SST.index(HELD_OUT_START)


@pytest.mark.parametrize("name", SEA_SURFACE)
def test_constants_come_from_training_alone(name: str) -> None:
    end = SST.index(TRAINING_END)
    fitted = Scaling.fit(changed(SST, slice(end, None))).to_arrays()
    with np.load(model_path(name)) as arrays:
        for key, value in fitted.items():
            np.testing.assert_array_equal(value, arrays[key])
    assert Scaling.fit(changed(SST, end - 1)).scale != fitted["scale"]


def test_scaling_by_hand() -> None:
    scaling = Scaling.fit(SST)
    table = SST.temperature[: SST.index(TRAINING_END)].reshape(-1, 12)
    np.testing.assert_allclose(scaling.climatology, table.mean(axis=0), rtol=1e-12)
    anomaly = (table - table.mean(axis=0)).reshape(-1)
    np.testing.assert_allclose(scaling.scale, anomaly.std(), rtol=1e-12)
    for horizon, damping in zip(HORIZONS, scaling.damping, strict=True):
        slope = np.linalg.lstsq(anomaly[:-horizon, None], anomaly[horizon:])[0][0]
        np.testing.assert_allclose(damping, slope, rtol=1e-9)
    back = scaling.temperature(scaling.anomaly(SST), SST.month)
    np.testing.assert_allclose(back, SST.temperature, rtol=1e-14)


@pytest.mark.parametrize("key", ["climatology", "scale", "damping"])
def test_scaling_needs_every_constant(key: str) -> None:
    arrays = Scaling.fit(SST).to_arrays()
    assert Scaling.from_arrays(arrays).scale == arrays["scale"]
    with pytest.raises(ValueError, match=key):
        Scaling.from_arrays({k: v for k, v in arrays.items() if k != key})
    with pytest.raises(ValueError, match=key):
        Scaling.from_arrays({**arrays, key: np.zeros((2, 2))})


# forecasts


def test_forecast_features() -> None:
    x = forecast_features(np.array([1.0, 3.0, -2.0]), np.array([12, 1, 2]))
    assert x.shape == (3, 4)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x[:, 0], [1.0, 3.0, -2.0])
    np.testing.assert_array_equal(x[:, 1], [0.0, 2.0, -5.0])
    np.testing.assert_allclose(x[:, 2], [0.0, 0.5, np.sqrt(0.75)], atol=1e-7)
    np.testing.assert_allclose(x[:, 3], [1.0, np.sqrt(0.75), 0.5], atol=1e-7)


@pytest.mark.parametrize("month", [0, 1, 400, 551, 552, 650, 731])
def test_forecast_does_not_look_ahead(month: int) -> None:
    model = load_model(model_path("sst_forecast"), len(HORIZONS))
    before = model.forecast(SST)
    after = model.forecast(changed(SST, slice(month, None)))
    np.testing.assert_array_equal(before[:month], after[:month])
    assert (before[month:] != after[month:]).any(axis=1).all()


def test_forecast_baselines_by_hand() -> None:
    scaling = Scaling.fit(SST)
    targets = np.arange(SST.index(HELD_OUT_START), len(SST))
    for horizon in HORIZONS:
        found = baselines.forecasts(SST, scaling, targets, horizon)
        for n, target in enumerate(targets):
            climatology = scaling.climatology[target % 12]
            origin = target - horizon
            anomaly = SST.temperature[origin] - scaling.climatology[origin % 12]
            expected = {
                "persistence": SST.temperature[origin],
                "seasonal persistence": SST.temperature[target - 12],
                "climatology": climatology,
                "anomaly persistence": climatology + anomaly,
                "damped anomaly": climatology + scaling.damping[horizon - 1] * anomaly,
            }
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                np.testing.assert_allclose(found[name][n], value, rtol=1e-13)


# gaps


def test_gap_masks_hide_each_month_once() -> None:
    start, stop = 552, 720
    missing = gap_masks(732, start, stop)
    assert missing.shape == (732, 4)
    np.testing.assert_array_equal(missing.sum(axis=1), np.isin(np.arange(732), range(start, stop)))
    for column in missing.T:
        edges = np.flatnonzero(np.diff(column.astype(int)))
        np.testing.assert_array_equal(np.diff(edges)[::2], GAP_LENGTH)  # gaps
        np.testing.assert_array_equal(np.diff(edges)[1::2], 18)  # known months between
        assert not (column[12:] & column[:-12]).any()


@pytest.mark.parametrize(("start", "stop"), [(-6, 0), (0, 5), (12, 6), (726, 738)])
def test_gap_masks_refuse_what_does_not_fit(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match=f"start = {start}, stop = {stop}"):
        gap_masks(732, start, stop)


def test_gapfill_features() -> None:
    missing = np.array([[False, True], [True, False], [True, False], [False, False]])
    guess = gapfill_guess(np.array([1.0, 50.0, 60.0, 4.0]), missing)
    np.testing.assert_allclose(guess.T, [[1.0, 2.0, 3.0, 4.0], [50.0, 50.0, 60.0, 4.0]])
    x = gapfill_features(guess, np.array([3, 4, 5, 6]), missing)
    assert x.shape == (4, 2, 4)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x[:, :, 0], guess.astype(np.float32))
    np.testing.assert_array_equal(x[:, :, 1], missing)
    np.testing.assert_allclose(x[:, 0, 2], x[:, 1, 2])
    np.testing.assert_allclose(x[[0, 3], 0, 2:], [[1.0, 0.0], [0.0, -1.0]], atol=1e-7)


def test_hidden_months_are_not_looked_at() -> None:
    model = load_model(model_path("sst_gapfill"), 1)
    missing = gap_masks(len(SST), SST.index(HELD_OUT_START), len(SST) - 12)
    filled = model.fill(SST, missing)
    simple = baselines.fillings(SST, model.scaling, missing)
    for b, gap in enumerate(missing.T):
        other = changed(SST, gap)
        np.testing.assert_array_equal(filled[:, b], model.fill(other, missing)[:, b])
        for name, values in baselines.fillings(other, model.scaling, missing).items():
            np.testing.assert_array_equal(values[gap, b], simple[name][gap, b])
    seen = changed(SST, SST.index(HELD_OUT_START) - 1)
    assert (filled[missing] != model.fill(seen, missing)[missing]).any()


def test_filling_baselines_by_hand() -> None:
    scaling = Scaling.fit(SST)
    missing = np.zeros((len(SST), 1), dtype=np.bool_)
    missing[600:603] = True
    found = {k: v[missing] for k, v in baselines.fillings(SST, scaling, missing).items()}
    left, right = SST.temperature[599], SST.temperature[603]
    part = np.array([0.25, 0.5, 0.75])
    climatology = scaling.climatology[:3]  # month 600 is a January
    anomalies = left - scaling.climatology[11], right - scaling.climatology[3]
    expected = {
        "linear interpolation": left + part * (right - left),
        "seasonal persistence": SST.temperature[588:591],
        "climatology": climatology,
        "anomaly interpolation": climatology + anomalies[0] + part * (anomalies[1] - anomalies[0]),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-13)


# training


def test_one_part_is_a_window_of_the_record() -> None:
    record = np.arange(468.0)
    plain = Mixtures(length=72, batch=500, parts=1, gain=0.0, offset=0.0, mirror=False)
    series, month = plain.draw(np.random.default_rng(0), record)
    np.testing.assert_array_equal(series, series[:, :1] + np.arange(72))
    np.testing.assert_array_equal(month, series % 12 + 1)
    assert series.min() >= 0
    assert series[:, -1].max() <= 467
    assert len(set(series[:, 0])) > 250


def test_mixtures_keep_season_and_variance() -> None:
    season = np.sin(2 * np.pi * np.arange(468) / 12)
    several = Mixtures(length=60, batch=400, parts=8, gain=0.0, offset=0.0, mirror=False)
    series, month = several.draw(np.random.default_rng(1), season)
    expected = np.sin(2 * np.pi * (month - 1) / 12)
    factor = (series * expected).sum(axis=1) / (expected**2).sum(axis=1)
    np.testing.assert_allclose(series, factor[:, None] * expected, atol=1e-12)
    assert (factor > 0).all()  # not mirrored
    mirrored = replace(several, mirror=True).draw(np.random.default_rng(1), season)[0]
    assert (mirrored * expected).sum(axis=1).min() < 0
    noise = np.random.default_rng(2).standard_normal(468)
    noisy = several.draw(np.random.default_rng(3), noise)[0]
    np.testing.assert_allclose(noisy.std(), 1.0, rtol=0.1)


def test_mixtures_are_seeded_and_scaled() -> None:
    mixtures = Mixtures(length=24, batch=5, parts=2, gain=0.5, offset=0.2, mirror=True)
    record = np.random.default_rng(0).standard_normal(120)
    first, again, other = (mixtures.draw(np.random.default_rng(s), record)[0] for s in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    flat = replace(mixtures, gain=0.0, batch=4000).draw(np.random.default_rng(0), np.zeros(120))[0]
    np.testing.assert_allclose(flat.std(), 0.2, rtol=0.05)
    assert (np.ptp(flat, axis=1) == 0).all()


def test_random_gaps() -> None:
    missing = random_gaps(np.random.default_rng(0), 300, 20)
    assert missing.shape == (300, 20)
    for column in missing.T:
        edges = np.flatnonzero(np.diff(column.astype(int)))
        lengths = np.diff(edges[int(column[0]) :])
        assert set(lengths[::2]) <= set(range(3, 8))
        assert set(lengths[1::2]) <= set(range(8, 25))
        assert column.any()


def test_save_model_needs_npz(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path must end in \.npz"):
        save_model(tmp_path / "model.bin", {}, Scaling.fit(SST))
    assert not list(tmp_path.iterdir())
