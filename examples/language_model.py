"""
A language model, and what its units do
=======================================

An LSTM reads English character by character and guesses the next one. Afterwards one looks for
units that mean something, and colours the text by them.
"""

# %%
# Text
# ----
# Python's own manual of its language, which comes with Python.

from pydoc_data.topics import topics

import matplotlib.pyplot as plt
import numpy as np

from fastlstm import LSTM
from fastlstm.optim import Adam
from fastlstm.training import Embedding, Network, Sequences, Trainer

text = "".join(character for character in "\n".join(topics.values()) if character.isascii())
letters = sorted(set(text))
number = {letter: n for n, letter in enumerate(letters)}
codes = np.array([number[letter] for letter in text])
print(len(text), "characters,", len(letters), "different ones")

# %%
# Training
# --------
# Pieces of 128 characters; the answer at each step is the character that follows.

T = 128
pieces = codes[: 1600 * T + 1]
x, y = pieces[:-1].reshape(-1, T).T, pieces[1:].reshape(-1, T).T  # (T, B)
training, held_out = Sequences(x, y, lengths=T).split(0.05, seed=0)
network = Network(
    LSTM(16, 64, forget_bias=1, seed=0),
    loss="cross_entropy",
    classes=letters,
    embedding=Embedding(len(letters), 16),
    seed=0,
)
trainer = Trainer(
    network, training, held_out, Adam(0.02), epochs=6, batch_size=16, schedule="cosine", seed=0
)
trainer.fit()
for n, epoch in enumerate(trainer.history, 1):
    print(f"epoch {n}: {epoch.validation.loss / np.log(2):.2f} bits a character, held out")

# %%
# What it writes
# --------------

arrays = network.state_dict()
table, weight, bias = (arrays[k] for k in ("embedding.weight", "head.weight", "head.bias"))
stream, rng = network.lstm.stream(), np.random.default_rng(0)
written = "The "
for letter in written:
    h = stream.step(table[number[letter]])
for _ in range(300):
    z = (weight @ h + bias) / 0.6
    p = np.exp(z - z.max())
    written += rng.choice(letters, p=p / p.sum())
    h = stream.step(table[number[written[-1]]])
print(written)

# %%
# Words are seldom right and grammar is not: these are six epochs of a small layer. What is known of
# letters and words is enough to look for.

# %%
# Which unit goes with what
# -------------------------
# A passage that it has not learnt, and the hidden state at each of its characters. For a property
# of the text, the unit that goes with it best. One of 64 always does, be it by chance: so it is
# chosen in the first half of the passage, and what counts is the correlation in the second.

passage = text[1600 * T :][:12_000]
h, _ = network.lstm(table[[number[letter] for letter in passage]])  # (T, H)
half = len(passage) // 2


def inside(begin, end):
    """Whether each character of the passage stands between two marks."""
    depth, depths = 0, []
    for character in passage:
        depth = depth + 1 if character == begin else max(0, depth - (character == end))
        depths.append(depth)
    return np.array(depths) > 0


properties = {
    "letter": [character.isalpha() for character in passage],
    "end of a word": [character in " .,\n" for character in passage],
    "vowel": [character in "aeiou" for character in passage],
    "capital letter": [character.isupper() for character in passage],
    "in parentheses": inside("(", ")"),
}
found = {}
for name, values in properties.items():
    values = np.asarray(values, float)
    chosen = np.corrcoef(h[:half].T, values[:half])[-1, :-1]
    unit = int(np.abs(chosen).argmax())
    r = np.corrcoef(h[half:, unit], values[half:])[0, 1]
    if abs(r) > 0.5:
        found[name] = unit
    print(f"{name:15s} unit {unit:2d}, r = {chosen[unit]:+.2f} where chosen, {r:+.2f} elsewhere")

# %%
# What the present letter is, units tell; none counts parentheses, as some of far larger networks
# do (Karpathy and others, 2015).
#
# The units with r beyond 0.5 over the text, the second half: red is +1, blue is -1.

WIDTH, ROWS = 76, 3
shown = slice(half, half + WIDTH * ROWS)
fig, axes = plt.subplots(len(found), 1, figsize=(8, 4.2), layout="constrained", squeeze=False)
for ax, (name, unit) in zip(axes[:, 0], found.items(), strict=True):
    ax.imshow(h[shown, unit].reshape(ROWS, WIDTH), cmap="RdBu_r", vmin=-1, vmax=1,
              aspect="auto", alpha=0.7)  # fmt: skip
    for n, character in enumerate(passage[shown].replace("\n", " ")):
        ax.text(n % WIDTH, n // WIDTH, character, family="monospace", fontsize=7,
                ha="center", va="center")  # fmt: skip
    ax.set_title(f"unit {unit}: {name}", fontsize=9, loc="left")
    ax.axis("off")
plt.show()
