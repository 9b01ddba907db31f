"""
Hydrology: a network over a grid in xarray
==========================================

Rain and temperature of each place become its runoff. One LSTM is trained on some basins and applied
to a whole grid, lazily over Dask.
"""

# %%
# Weather and truth
# -----------------
# The weather is drawn, and the truth is a model of snow and of a soil that holds water, in which
# each place has its own numbers: what an LSTM has to find out is that there is a memory of months.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr

import fastlstm.xarray
from fastlstm import LSTM
from fastlstm.optim import Adam
from fastlstm.training import Network, Scaling, Sequences, Trainer

rng = np.random.default_rng(0)
T, LAT, LON = 3 * 365, 8, 10
time = pd.date_range("2001-01-01", periods=T)
height = np.linspace(0, 1, LAT)[:, None] + 0.3 * rng.uniform(size=(LAT, LON))
season = np.cos(2 * np.pi * (np.arange(T) - 200) / 365)[:, None, None]
temp = 8 + 10 * season - 12 * height + rng.normal(0, 2, (T, LAT, LON))
wet = rng.uniform(size=(T, 1, 1)) < 0.35  # it rains everywhere or nowhere
rain = wet * rng.gamma(0.8, 8, (T, LAT, LON)) * (0.7 + height)


def runoff(rain, temp):
    """Snow below 0 degrees, melt above; a soil that drains by a thirtieth a day."""
    snow, soil, q = np.zeros_like(rain[0]), np.full_like(rain[0], 50.0), np.empty_like(rain)
    for t in range(len(rain)):
        melt = np.minimum(snow, np.maximum(0, 3 * temp[t]))
        snow += np.where(temp[t] < 0, rain[t], 0) - melt
        soil += np.where(temp[t] < 0, 0, rain[t]) + melt
        soil -= np.minimum(soil, 0.2 * np.maximum(0, temp[t]))  # evaporates
        q[t] = soil / 30
        soil -= q[t]
    return q


places = {"time": time, "lat": np.arange(LAT), "lon": np.arange(LON)}
axes = ("time", "lat", "lon")
weather = xr.Dataset({"rain": (axes, rain), "temp": (axes, temp)}, coords=places)
truth = xr.DataArray(runoff(rain, temp), coords=places, dims=axes)

# %%
# Training on a quarter of the places
# -----------------------------------
# Two years; the first 60 days of a sequence don't count, as nothing is known of the snow and soil.

basins = rng.permutation(LAT * LON)[:20]
years = slice(0, 2 * 365)
x = np.stack([rain, temp], axis=-1).reshape(T, -1, 2)[years, basins]
y = truth.to_numpy().reshape(T, -1, 1)[years, basins]
counts = np.ones(y.shape[:2])
counts[:60] = 0
data = Sequences(x, y, counts)
scaling = Scaling.fit(data)
network = Network(
    LSTM(2, 24, forget_bias=3, seed=0),
    1,
    features=["rain", "temp"],
    scaling=scaling,
    seed=0,
)
data = scaling.apply(data, np.float32)
trainer = Trainer(
    network, data, None, Adam(0.01), epochs=40, batch_size=10, schedule="cosine", seed=0
)
trainer.fit()

# %%
# The whole grid
# --------------
# ``apply`` takes the variables by the network's own names. Over chunks nothing is computed before
# it is asked for, and the state goes on from one chunk of time to the next.

lazy = weather.chunk({"lat": 4, "time": 365})
flow = fastlstm.xarray.apply(network, lazy, time="time", name="runoff", attrs={"units": "mm/day"})
print(flow)

# %%

flow = flow.compute()
held_out = slice("2003-01-01", None)
error = ((flow - truth) ** 2).sel(time=held_out).sum("time")
spread = ((truth - truth.mean("time")) ** 2).sel(time=held_out).sum("time")
efficiency = 1 - error / spread
print("Nash-Sutcliffe efficiency in the third year")
is_basin = np.isin(np.arange(LAT * LON), basins)
for name, which in (("trained on", is_basin), ("others", ~is_basin)):
    own = efficiency.to_numpy().ravel()[which]
    print(f"{which.sum()} places {name:10s}  median {np.median(own):.2f}, least {own.min():.2f}")

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(2, 1), layout="constrained")
place = {"lat": 6, "lon": 3}
truth.sel(time=held_out).isel(place).plot(ax=left, color="k", label="truth")
flow.sel(time=held_out).isel(place).plot(ax=left, color="C1", linestyle="--", label="LSTM")
left.set(
    title=f"a place with snow, efficiency {float(efficiency.isel(place)):.2f}",
    ylabel="runoff, mm a day",
    xlabel="",
)
left.legend()
efficiency.plot(ax=right, vmin=0, vmax=1, cmap="cividis", cbar_kwargs={"label": ""})
right.set_title("efficiency")
plt.show()

# %%
# The network knows nothing of heights. It does worse in the upper half of the map, where snow lies
# for long and it has seen few places: here the flood comes in time, and half as high. Heights
# as inputs that stay the same in time, and more basins, are what the field uses against that.
#
# From file to file, on a cluster: :doc:`/how-to/xarray`.
