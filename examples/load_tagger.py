"""Use a tagger that PyTorch trained, without PyTorch: `fastlstm.load_network`.

    python examples/torch_tagger.py                      # writes torch_tagger.pt
    python examples/load_tagger.py 'x = "a" + 1  # one'  # kinds of its characters

The file is a state dict: names and arrays. That each character has an answer, what the answers are
called and that they are classes is for the program to say; the rest follows from names and shapes.
"""

from __future__ import annotations

import argparse
from itertools import groupby
from pathlib import Path

import numpy as np

import fastlstm

KINDS = ("nothing", "comment", "string", "number", "name", "keyword", "operator")


def main() -> None:
    """Load the file, and print the kinds of a line's parts."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("line")
    parser.add_argument("--model", type=Path, default=Path("torch_tagger.pt"))
    options = parser.parse_args()

    tagger = fastlstm.load_network(
        options.model, each_step=True, loss="cross_entropy", classes=KINDS
    )
    line = options.line + "\n"  # as all lines that it was trained on end
    codes = [ord(character) if character.isascii() else 0 for character in line]
    kinds = tagger.predict(np.array(codes)[:, np.newaxis])[:, 0]  # x (T, B)
    pairs = zip(kinds[:-1], options.line, strict=True)
    for kind, part in groupby(pairs, key=lambda pair: pair[0]):
        print(f"{kind:9s} {''.join(character for _, character in part)!r}")


if __name__ == "__main__":
    main()
