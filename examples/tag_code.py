"""
Tag each character with a BiLSTM
================================

What an editor colours code by: is a character part of a comment, a string, a name, ...? Quotes and
``#`` decide over what follows, so what is needed is a memory; and both sides help.
"""

# %%
# Lines and their tags
# --------------------
# The code is the standard library's, the answers are its tokenizer's.

import io
import keyword
import sysconfig
import tokenize
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from fastlstm import BiLSTM
from fastlstm.optim import Adam
from fastlstm.training import Embedding, Network, Sequences, Trainer

KINDS = ["nothing", "comment", "string", "number", "operator", "name", "keyword"]
OF_TOKEN = {
    tokenize.COMMENT: "comment",
    tokenize.STRING: "string",
    tokenize.NUMBER: "number",
    tokenize.OP: "operator",
    tokenize.NAME: "name",
}


def tagged_lines(name):
    """Lines of a module with the kind of each character, of lines that hold a token."""
    text = (Path(sysconfig.get_path("stdlib")) / name).read_text(encoding="utf-8")
    lines = text.splitlines()
    kinds = [np.zeros(len(line), np.int64) for line in lines]
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        (first, begin), (last, end) = token.start, token.end
        kind = OF_TOKEN.get(token.type, "nothing")
        if kind == "name" and keyword.iskeyword(token.string):
            kind = "keyword"
        if first == last and first <= len(lines):
            kinds[first - 1][begin:end] = KINDS.index(kind)
    return [(line, kind) for line, kind in zip(lines, kinds, strict=True) if kind.any()]


def as_sequences(tagged):
    """The lines as lists of integers and of tags, which differ in length."""
    x = [np.array([min(ord(character), 127) for character in line]) for line, _ in tagged]
    return Sequences(x, [kind for _, kind in tagged])


training = as_sequences(tagged_lines("argparse.py"))
held_out = tagged_lines("csv.py")
print(len(training), "lines to learn from,", len(held_out), "held out")

# %%
# A network
# ---------
# A vector for each character is learnt, a BiLSTM reads the vectors, and a linear head answers at
# each step. Padding is not computed: a batch of lines takes the time of their characters.

network = Network(
    BiLSTM(16, 32, seed=0),
    loss="cross_entropy",
    classes=KINDS,
    embedding=Embedding(128, 16),
    seed=0,
)
trainer = Trainer(network, training, None, Adam(0.01), epochs=6, batch_size=32, seed=0)
trainer.fit()

# %%
# Held-out lines
# --------------

answers = network.predict([np.array([min(ord(c), 127) for c in line]) for line, _ in held_out])
right = np.concatenate(
    [answer == np.array(KINDS)[kind] for answer, (_, kind) in zip(answers, held_out, strict=True)]
)
print(f"{right.mean():.1%} of {right.size} characters are tagged as the tokenizer has it")

# %%
# As an editor would show it:

COLOURS = dict(zip(KINDS, ["0.6", "C2", "C3", "C1", "0.3", "k", "C0"], strict=True))
chosen = [n for n, (line, _) in enumerate(held_out) if 30 < len(line) < 78][60:72]
fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
for row, n in enumerate(chosen):
    for column, (character, kind) in enumerate(zip(held_out[n][0], answers[n], strict=True)):
        ax.text(column, -row, character, color=COLOURS[kind], family="monospace", fontsize=8)
ax.set(xlim=(0, 78), ylim=(-len(chosen), 1))
ax.axis("off")
plt.show()

# %%
# Sequences of different lengths, and all else of training: :doc:`/tutorials/training`.
