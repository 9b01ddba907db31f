"""
Explain a forecast
==================

Why does the network say that it will get warm? ``fastlstm.explain`` says how much of an answer each
month and each feature of the input made. The shares add up, and the residual says how exactly.
"""

# %%
# A forecast
# ----------
# The bundled network for the sea-surface temperature off Peru, in the June of 1997, months before
# El Niño was at its height: what it says of September.

import matplotlib.pyplot as plt
import numpy as np

from fastlstm import explain
from fastlstm.data import load_sst, model_path
from fastlstm.data.features import Scaling, forecast_features
from fastlstm.training import Network

network = Network.load(model_path("sst_forecast"), loss="mse")
sst = load_sst()
anomaly = Scaling.fit(sst, "1989-01").anomaly(sst)
x = forecast_features(anomaly, sst.month)  # (T, 4)
now = sst.index("1997-06")
seen = x[now - 35 : now + 1]  # three years
print("months of the forecast:", network(seen[:, None])[-1, 0])

# %%
# Integrated gradients
# --------------------
# From what to what? The baseline is the mean of all inputs: the difference of the forecast from
# that of a month like all others is what is shared out. Points are added until the residual is
# small.

why = explain.integrated_gradients(network, seen, output=2, baseline="mean", data=x, tolerance=1e-4)
print(why)
print(f"the shares add up to {why.values.sum():.4f}, "
      f"the outputs differ by {why.output - why.baseline_output:.4f}")  # fmt: skip

# %%

fig, (above, below) = plt.subplots(2, 1, figsize=(8, 5), sharex=True, layout="constrained")
months = sst.dates[now - 35 : now + 1].astype("datetime64[D]")
above.plot(months, anomaly[now - 35 : now + 1], "k.-")
above.set_ylabel("anomaly that is read")
bottom_up, bottom_down = np.zeros(36), np.zeros(36)
names = ["anomaly", "its change", "season, sine", "season, cosine"]
for k, name in enumerate(names):
    share = why.values[:, k]
    below.bar(months, share, 25, bottom=np.where(share > 0, bottom_up, bottom_down), label=name)
    bottom_up += np.maximum(share, 0)
    bottom_down += np.minimum(share, 0)
below.use_sticky_edges = False
below.axhline(0, color="0.6", linewidth=0.8)
below.set_ylabel("share of the forecast")
below.legend()
plt.show()

# %%
# Another question, another method
# --------------------------------
# What would the network say, had it not seen a month? ``occlusion`` puts the baseline there.

without = explain.occlusion(network, seen, output=2, baseline="mean", data=x)
print("by the last six months, the latest first")
print("integrated gradients", np.round(why.by_lag()[:6], 3))
print("occlusion           ", np.round(without.by_lag()[:6], 3))

# %%
# And what is in the memory? By the layer's own equations a cell state is a sum over steps: what
# each of them added, times what the forget gates have left of it since.

parts = explain.decompose(network.lstm, seen)
share = np.abs(parts.cell).sum(axis=1)
print(f"of the cells {share[-6:].sum() / share.sum():.0%} stem from the last six months")

# %%
# When to ask which method: :doc:`/how-to/look-inside`.
