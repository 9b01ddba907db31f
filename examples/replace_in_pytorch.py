"""
Train a PyTorch model on these kernels
======================================

``fastlstm.torch.replace`` swaps every LSTM of a model that is there already. Nothing else of the
program changes: optimiser, loss, checkpoints.
"""

# %%
# A model, as anybody has it
# --------------------------

import statistics
import time

import matplotlib.pyplot as plt
import torch
from torch import nn

import fastlstm.torch


class Adder(nn.Module):
    """Reads numbers and marks (B, T, 2), and answers with the sum of those that are marked."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 48, batch_first=True)
        self.head = nn.Linear(48, 1)

    def forward(self, x):
        """Return (B,)."""
        _, (h_n, _) = self.lstm(x)
        return self.head(h_n[-1]).squeeze(1)


def problem(B, T=30):
    """The adding problem of Hochreiter and Schmidhuber (1997): two of T numbers are marked."""
    x = torch.rand(B, T, 2)
    x[:, :, 1] = 0
    first, second = torch.randint(T // 2, (B,)), torch.randint(T // 2, T, (B,))
    x[torch.arange(B), first, 1] = x[torch.arange(B), second, 1] = 1
    return x, x[:, :, 0].mul(x[:, :, 1]).sum(1)


def train(model, steps):
    """Train, and return the loss and the milliseconds of each step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses, milliseconds = [], []
    for _ in range(steps):
        x, y = problem(32)
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        milliseconds.append(1e3 * (time.perf_counter() - start))
    return losses, milliseconds


# %%
# The swap
# --------

torch.manual_seed(0)
torch.set_num_threads(1)
model = Adder()
with torch.no_grad():
    model.lstm.bias_hh_l0[48:96] = 1  # remember at first
print(fastlstm.torch.replace(model))

# %%
# Training
# --------

losses, _ = train(model, 800)

fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
ax.semilogy(losses, linewidth=0.7)
ax.axhline(1 / 6, color="0.6", linestyle=":")
ax.text(800, 1 / 5, "who answers 1 always", ha="right", va="bottom", color="0.4")
ax.set(xlabel="step", ylabel="mean squared error")
plt.show()

# %%
# How long a step takes
# ---------------------
# Two new models train in turns, so that both meet whatever else the machine does: medians count.

original, replaced = Adder(), Adder()
fastlstm.torch.replace(replaced)
spent = {"here": [], "torch.nn.LSTM": []}
for _ in range(20):
    for name, each in zip(spent, (replaced, original), strict=True):
        spent[name] += train(each, 5)[1]
for name, milliseconds in spent.items():
    print(f"{name:14s} {statistics.median(milliseconds):.1f} ms a step")

# %%
# Back to PyTorch
# ---------------
# The parameters have PyTorch's names: what was learnt goes into the model as it was.

original.load_state_dict(model.state_dict())
x, y = problem(512)
with torch.no_grad():
    for name, each in (("here", model), ("torch.nn.LSTM", original)):
        print(f"{name:14s} RMSE {(each(x) - y).square().mean().sqrt():.4f}")

# %%
# Compiled, exported, quantised: :doc:`/how-to/pytorch`.
