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

from fastlstm import plot
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
# Two of the strongest El Niños, with the input above. Units are in the order of how long they
# remember, the longest on top.

order = trace.time_constants()[0].argsort()
steps = np.arange(sst.index("1981-01"), sst.index("1999-01"))
plot.gates(lstm.trace(x, units=order, steps=steps), x, names=("i", "f", "o", "c"))
plt.show()

# %%
# How long each unit remembers
# ----------------------------

plot.memory(trace)
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
