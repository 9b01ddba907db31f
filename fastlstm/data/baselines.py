"""What a model has to beat: forecasts and gap fillings that need no network.

All take temperatures in degrees Celsius and give temperatures in degrees Celsius.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastlstm.data import SeaSurfaceTemperature
from fastlstm.data.features import HORIZONS, Float64, Scaling, forecast_guess, gapfill_guess


def forecasts(
    sst: SeaSurfaceTemperature, scaling: Scaling, targets: NDArray[np.int64], horizon: int
) -> dict[str, Float64]:
    """Forecasts of the months `targets`, each made `horizon` months earlier.

    Parameters
    ----------
    sst : SeaSurfaceTemperature
    scaling : Scaling
    targets : (N,) int64
        Positions in the series, at least `horizon` and at least 12.
    horizon : int
        Months ahead, one of `HORIZONS`.

    Returns
    -------
    dict of (N,) float64
        `persistence`: the last temperature known; `seasonal persistence`: the temperature a year
        before the target; `climatology`: the training mean of the target's calendar month;
        `anomaly persistence`: climatology plus the last anomaly; `damped anomaly`: climatology plus
        the last anomaly times the factor that fits training best.
    """
    origins = targets - horizon
    anomaly = scaling.anomaly(sst)
    guess = forecast_guess(anomaly, scaling)[origins, HORIZONS.index(horizon)]
    month = sst.month[targets]
    return {
        "persistence": sst.temperature[origins],
        "seasonal persistence": sst.temperature[targets - 12],
        "climatology": scaling.temperature(np.zeros(len(targets)), month),
        "anomaly persistence": scaling.temperature(anomaly[origins], month),
        "damped anomaly": scaling.temperature(guess, month),
    }


def fillings(
    sst: SeaSurfaceTemperature, scaling: Scaling, missing: NDArray[np.bool_]
) -> dict[str, Float64]:
    """Values for missing months, from those that are not missing.

    Parameters
    ----------
    sst : SeaSurfaceTemperature
        T months; the temperatures of missing months are not looked at.
    scaling : Scaling
    missing : (T, B) bool
        No gap may touch either end of the series, nor hide a month a year after another gap.

    Returns
    -------
    dict of (T, B) float64
        Meaningful where `missing` is true. `linear interpolation` between the months beside the
        gap; `seasonal persistence`: the temperature a year earlier; `climatology`: the training
        mean of the calendar month; `anomaly interpolation`: climatology plus the anomaly
        interpolated linearly.
    """
    climatology = scaling.climatology[sst.month - 1][:, None]
    interpolated = gapfill_guess(scaling.anomaly(sst), missing)
    shape = missing.shape
    return {
        "linear interpolation": gapfill_guess(sst.temperature, missing),
        "seasonal persistence": np.broadcast_to(np.roll(sst.temperature, 12)[:, None], shape),
        "climatology": np.broadcast_to(climatology, shape),
        "anomaly interpolation": climatology + scaling.scale * interpolated,
    }
