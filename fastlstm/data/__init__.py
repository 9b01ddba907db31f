"""Windows of tables and series, and the data and models that come with the package.

`windows` cuts a DataFrame, or any other table, into what a network reads and what it is to answer.
What the package brings with it is told in SOURCES.md beside this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastlstm.data.forecasting import Forecast, forecast
from fastlstm.data.windowing import Windows, windows

__all__ = [
    "MODELS",
    "Forecast",
    "SeaSurfaceTemperature",
    "Windows",
    "forecast",
    "load_sst",
    "model_path",
    "windows",
]

#: Names that `model_path` knows.
MODELS = ("sst_forecast", "sst_gapfill", "digits")


@dataclass(frozen=True)
class SeaSurfaceTemperature:
    """A monthly series of sea-surface temperature, without missing months.

    Attributes
    ----------
    year : (N,) int64
    month : (N,) int64
        1 is January, 12 is December.
    temperature : (N,) float64
        Mean over the month and the region, in degrees Celsius.
    """

    year: NDArray[np.int64]
    month: NDArray[np.int64]
    temperature: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.temperature)

    @property
    def dates(self) -> NDArray[np.datetime64]:
        """(N,) datetime64[M]: the months."""
        return (12 * (self.year - 1970) + self.month - 1).astype("datetime64[M]")

    def index(self, date: str) -> int:
        """Position of a month written "1996-01"; one past the end is allowed, as in a slice.

        Raises
        ------
        ValueError
            When `date` is not a month of the series, nor the month after its last.
        """
        first = self.dates[0]
        position = int((np.datetime64(date, "M") - first).astype(np.int64))
        if not 0 <= position <= len(self):
            raise ValueError(f"date {date} is not in the series {first} .. {self.dates[-1]}")
        return position


def load_sst() -> SeaSurfaceTemperature:
    """Load the sea-surface temperature of the region Nino 1+2, 1950 to 2010 (732 months).

    The region is the corner of the Pacific off Peru and Ecuador, 0-10 S and 90-80 W, where
    El Nino was first noticed. Source and licence: SOURCES.md in this folder.
    """
    text = resources.files(__name__).joinpath("nino12_sst.csv").read_text(encoding="ascii")
    table = np.loadtxt(text.splitlines(), delimiter=",", skiprows=1, ndmin=2)
    # table (years, 13): the year, then January to December
    years = table[:, 0].astype(np.int64)
    return SeaSurfaceTemperature(
        year=np.repeat(years, 12),
        month=np.tile(np.arange(1, 13, dtype=np.int64), years.shape[0]),
        temperature=np.ascontiguousarray(table[:, 1:]).reshape(-1),
    )


def model_path(name: str) -> Path:
    """Path of a bundled model, an .npz file that `fastlstm.load` reads.

    Parameters
    ----------
    name : {"sst_forecast", "sst_gapfill"}

    Raises
    ------
    ValueError
        When there is no model of that name.
    """
    if name not in MODELS:
        raise ValueError(f"name must be one of {', '.join(MODELS)}, got {name!r}")
    # The package holds a compiled extension, so it is always installed as files.
    return Path(str(resources.files(__name__).joinpath(f"{name}.npz")))
