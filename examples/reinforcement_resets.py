"""
Reinforcement learning with resets
==================================

A corridor: at its beginning a sign says left or right, at its end one has to turn. Who has no
memory is right half of the time. Episodes end at different times in each of the environments, so a
batch of steps holds pieces of many episodes, and ``resets`` says where each begins.
"""

# %%
# Environments
# ------------

import matplotlib.pyplot as plt
import numpy as np

from fastlstm import LSTM
from fastlstm.optim import Adam, clip_grad_norm


class Corridors:
    """B corridors side by side; a new one begins where one ends."""

    def __init__(self, B, rng):
        self.rng, self.B = rng, B
        self.sign, self.left = np.zeros(B), np.zeros(B, np.int64)
        self.begin(np.ones(B, bool))

    def begin(self, which):
        """New signs and lengths for some of the corridors."""
        self.sign[which] = self.rng.choice([-1, 1], which.sum())
        self.left[which] = self.rng.integers(6, 14, which.sum())
        self.new = which

    def see(self):
        """x_t (B, 2): the sign, seen in the first step alone, and whether here is a turn."""
        return np.stack([self.sign * self.new, self.left == 0], axis=1).astype(np.float32)

    def act(self, turn):
        """Rewards (B,) of turning left or right, -1 or 1: they count where there is a turn."""
        ends = self.left == 0
        reward = np.where(ends, turn * self.sign, 0)
        self.left -= 1
        self.begin(ends)
        return reward, ends


# %%
# Act, then learn
# ---------------
# To act, a stream steps all environments at once; ``stream.reset(mask)`` zeroes the state of those
# that begin. To learn, ``record`` runs the whole chunk again with the same ``resets``: one call,
# the same bits. The gradient is that of the policy (REINFORCE) with the batch's mean reward as
# baseline.

rng = np.random.default_rng(1)
T, B, H = 40, 32, 16
world = Corridors(B, rng)
lstm = LSTM(2, H, forget_bias=1, seed=0)
head = np.zeros(H + 1)
parameters, rates = lstm.parameters.copy(), Adam(0.01)
head_rates = Adam(0.01)
rewards = []
for _ in range(150):
    stream = lstm.stream(B)
    world.begin(np.ones(B, bool))
    x, resets, turns, probability, reward, ends, h = [], [], [], [], [], [], []
    for _ in range(T):
        resets.append(world.new.copy())
        x.append(world.see())
        stream.reset(resets[-1])
        h.append(stream.step(x[-1]).copy())
        p = 1 / (1 + np.exp(-(h[-1] @ head[:-1] + head[-1])))
        turns.append(np.where(rng.uniform(size=B) < p, 1, -1))
        probability.append(p)
        r, e = world.act(turns[-1])
        reward.append(r)
        ends.append(e)
    y, _, tape = lstm.record(np.array(x), resets=np.array(resets))
    assert np.array_equal(y, np.array(h)), "the bits of the stream"

    reward, ends, p = np.array(reward), np.array(ends), np.array(probability)
    rewards.append(reward[ends].mean())
    advantage = np.where(ends, reward - rewards[-1], 0) / ends.sum()
    dz = advantage * (p - (np.array(turns) > 0))  # of -advantage * log p(turn)
    grads = tape.backward(dz[:, :, None] * head[:-1], wrt=["params"])
    clip_grad_norm(grads.params, 1.0)
    rates.step(parameters, grads.params)
    lstm.load_parameters(parameters)
    head_rates.step(head, np.append(np.einsum("tb,tbh->h", dz, y), dz.sum()))

print(f"mean reward of the last ten chunks: {np.mean(rewards[-10:]):.2f}")

# %%
# It remembers
# ------------

fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
ax.plot(rewards)
ax.axhline(0, color="0.6", linestyle=":")
ax.set(xlabel="chunk of 40 steps in 32 corridors", ylabel="mean reward", ylim=(-0.5, 1.05))
plt.show()

# %%
# Resets, and other batches that are no rectangle: :doc:`/reference/variants`.
