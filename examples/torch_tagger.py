"""Train a tagger of PyTorch, as it stands, on this package's kernels: `fastlstm.torch.replace`.

    python examples/torch_tagger.py            # writes torch_tagger.pt, within half a minute or so

An embedding, a BiLSTM and a linear layer say of each character of Python code what it is part of:
a comment, a string, a number, a name, a keyword, an operator, or nothing, which is what an editor
colours by. The code is the standard library's, which is on every machine that can run this, and the
answers are its tokenizer's. Lines differ in length, so batches are packed. The tagger knows nothing
of this package: `replace` gives it our LSTM in place of PyTorch's, with the same parameters, and
what it learns can be loaded into a tagger that has PyTorch's.
"""

from __future__ import annotations

import argparse
import io
import keyword
import sysconfig
import time
import tokenize
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import fastlstm.torch

KINDS = ("nothing", "comment", "string", "number", "name", "keyword", "operator")
TRAINING = (
    "argparse.py",
    "ast.py",
    "dataclasses.py",
    "inspect.py",
    "json/decoder.py",
    "tokenize.py",
)
HELD_OUT = ("csv.py", "textwrap.py", "json/encoder.py")
CHARACTERS = 128  # of ASCII; others are 0
BATCH = 32


class Tagger(nn.Module):
    """Characters to logits of their kinds."""

    def __init__(self, size: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CHARACTERS, size)
        self.lstm = nn.LSTM(size, size, bidirectional=True)
        self.head = nn.Linear(2 * size, len(KINDS))

    def forward(self, lines: PackedSequence) -> Tensor:
        """(N,) characters of a packed batch to (N, K), in its order."""
        y, _ = self.lstm(lines._replace(data=self.embedding(lines.data)))
        return self.head(y.data)


def kind_of(token: tokenize.TokenInfo) -> str:
    """Return the kind of a token's characters."""
    kinds = {
        tokenize.COMMENT: "comment",
        tokenize.STRING: "string",
        tokenize.NUMBER: "number",
        tokenize.OP: "operator",
    }
    if token.type == tokenize.NAME:
        return "keyword" if keyword.iskeyword(token.string) else "name"
    return kinds.get(token.type, "nothing")


def tagged_lines(path: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield characters and kinds of each line that has a token, (n,) both."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    kinds = [torch.zeros(len(line), dtype=torch.int64) for line in lines]
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        (first, begin), (last, end) = token.start, token.end
        if first == last and first <= len(lines):  # strings of several lines can't be told from one
            kinds[first - 1][begin:end] = KINDS.index(kind_of(token))
    for line, kind in zip(lines, kinds, strict=True):
        if kind.any():
            codes = [ord(character) if character.isascii() else 0 for character in line]
            yield torch.tensor(codes), kind


def corpus(names: tuple[str, ...]) -> list[tuple[Tensor, Tensor]]:
    """Return the tagged lines of files of the standard library."""
    folder = Path(sysconfig.get_path("stdlib"))
    return [line for name in names for line in tagged_lines(folder / name)]


def packed(lines: list[tuple[Tensor, Tensor]]) -> tuple[PackedSequence, Tensor]:
    """Return the characters of some lines in a packed batch, and their kinds, (N,)."""
    x, y = (pack_sequence(part, enforce_sorted=False) for part in zip(*lines, strict=True))
    return x, y.data


def accuracy(tagger: nn.Module, lines: list[tuple[Tensor, Tensor]]) -> float:
    """Return the share of characters whose kind is found."""
    x, y = packed(lines)
    with torch.no_grad():
        return float((tagger(x).argmax(dim=1) == y).float().mean())


def train(tagger: nn.Module, lines: list[tuple[Tensor, Tensor]], steps: int) -> float:
    """Train, and return the milliseconds of a step."""
    optimizer = torch.optim.Adam(tagger.parameters(), lr=3e-3)
    start = time.perf_counter()
    for step in range(steps):
        chosen = torch.randint(len(lines), (BATCH,)).tolist()
        x, y = packed([lines[number] for number in chosen])
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(tagger(x), y)
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step:4d}  loss {loss.item():.3f}")
    return (time.perf_counter() - start) / max(steps, 1) * 1e3


def main() -> None:
    """Train, score, write the file, and load it into a model that has PyTorch's own LSTM."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--output", type=Path, default=Path("torch_tagger.pt"))
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # lines are too short to share
    lines, held_out = corpus(TRAINING), corpus(HELD_OUT)

    tagger = Tagger()
    print(fastlstm.torch.replace(tagger))
    milliseconds = train(tagger, lines, options.steps)
    print(f"{milliseconds:.1f} ms a step, accuracy {accuracy(tagger, held_out):.1%} on other files")
    torch.save(tagger.state_dict(), options.output)
    print(f"wrote {options.output}")

    before = Tagger()  # with torch.nn.LSTM
    before.load_state_dict(torch.load(options.output))
    print(f"accuracy {accuracy(before, held_out):.1%} by torch.nn.LSTM")
    milliseconds = train(before, lines, options.steps // 10)
    print(f"{milliseconds:.1f} ms a step of torch.nn.LSTM")


if __name__ == "__main__":
    main()
