"""
See gates and cells over time
=============================

What does a trained LSTM do with a series? ``layer.trace`` is a call that keeps its gates and
states, by name, with the bits of the call.
"""

# %%
# A trace
# -------
# Of the bundled network that forecasts the sea-surface temperature off Peru.

import matplotlib.pyplot as plt
import numpy as np

from fastlstm.data import load_sst, model_path
from fastlstm.data.features import Scaling, forecast_features
from fastlstm.training import Network

lstm = Network.load(model_path("sst_forecast"), loss="mse").lstm
sst = load_sst()
anomaly = Scaling.fit(sst, "1989-01").anomaly(sst)
x = forecast_features(anomaly, sst.month)

trace = lstm.trace(x)
print(trace)
y, _ = lstm(x)
print("the bits of the call:", np.array_equal(trace.y, y))

# %%
# What units do, in a table
# -------------------------

print(trace.summary())

# %%
# Over time
# ---------
# Units in the order of how long they remember, the longest on top, and the input above: two of the
# strongest El Niños.

order = trace.time_constants()[0].argsort()
part = slice(sst.index("1981-01"), sst.index("1999-01"))
dates = sst.dates[part].astype("datetime64[D]")
fig, axes = plt.subplots(5, 1, figsize=(8, 7), sharex=True, layout="constrained")
axes[0].plot(dates, anomaly[part], color="k", linewidth=0.8)
axes[0].set_ylabel("anomaly")
for ax, name in zip(axes[1:], ("i", "f", "o", "c"), strict=True):
    values = np.squeeze(getattr(trace, name))[part][:, order].T  # (H, T)
    signed = name == "c"
    largest = np.abs(values).max() if signed else 1
    image = ax.pcolormesh(
        dates,
        np.arange(len(order)),
        values,
        cmap="RdBu_r" if signed else "cividis",
        vmin=-largest if signed else 0,
        vmax=largest,
    )
    ax.set_ylabel(f"{name}, by memory")
    fig.colorbar(image, ax=ax)
plt.show()

# %%
# How much is left of a cell state
# --------------------------------
# The products of f as they were, a line for each unit.

lags = np.arange(25)
fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
ax.plot(lags, trace.retention(lags)[:, 0], color="C0", alpha=0.6)
ax.set(xlabel="months later", ylabel="share that is left", ylim=(0, 1))
plt.show()

# %%
# Where a unit fires
# ------------------

unit = trace.unit(int(order[-1]))
for firing in unit.top(5):
    print(firing, sst.dates[firing.step])

# %%
# More that a trace tells: :doc:`/how-to/look-inside`.
