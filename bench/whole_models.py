"""Whole models of PyTorch before and after ``fastlstm.torch.replace``: a tagger, and one for OCR.

``python -m fastlstm.bench.whole_models`` times both, eager, in inference and in a training step,
and prints a Markdown table.  A model and its copy with our layers take turns, and their results are
compared before anything is timed.  It needs PyTorch.

- tagger: an embedding, a BiLSTM of two layers, a linear layer; sentences of 5 to 40 words in
  packed batches.
- ocr: four convolutions, a BiLSTM of two layers, a linear layer and CTC, on lines of text of 32
  rows and 320 columns of pixels, which are 80 steps for the LSTM.

A training step is forward, loss, backward and Adam's step.  The time that is not the LSTM's is the
same before and after: the ratio tells what a whole model gains.

Letters: T time steps, B sequences, N words of a packed batch, C characters.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from fastlstm.cli._options import Parser

from . import threads
from .compare import Settings, sample
from .measure import Spread, ratios

#: Largest difference that passes for rounding, relative to the largest number of the results.
_BOUND = 1e-5


@dataclass(frozen=True)
class Model:
    """A model with its data.

    Attributes
    ----------
    name : str
    module : torch.nn.Module
    batches : dict of str to tuple
        What the module is called with, by what that is, the one to train on last.
    loss : function of the module and a batch
    """

    name: str
    module: Any
    batches: dict[str, tuple[Any, ...]]
    loss: Callable[[Any, tuple[Any, ...]], Any]


# --- the models ---------------------------------------------------------------------------------


def tagger(torch: Any, words: int = 10_000, width: int = 128, tags: int = 20) -> Model:
    """Embedding, BiLSTM, linear layer over packed sentences."""
    rnn = torch.nn.utils.rnn

    class Tagger(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(words, width)
            self.lstm = torch.nn.LSTM(width, width, num_layers=2, bidirectional=True)
            self.head = torch.nn.Linear(2 * width, tags)

        def forward(self, *packed: Any) -> Any:  # (N,), and how they are packed -> (N, tags)
            data, *how = packed
            y, _ = self.lstm(rnn.PackedSequence(self.embedding(data), *how))
            return self.head(y.data)

    def batch(B: int) -> tuple[Any, ...]:
        sentences = [torch.randint(words, (n,)) for n in torch.randint(5, 41, (B,)).tolist()]
        return tuple(rnn.pack_sequence(sentences, enforce_sorted=False))

    def loss(module: Any, packed: tuple[Any, ...]) -> Any:
        return torch.nn.functional.cross_entropy(module(*packed), packed[0] % tags)

    batches = {"1 sentence": batch(1), "32 sentences": batch(32)}
    return Model("tagger", Tagger(), batches, loss)


def ocr(torch: Any, characters: int = 80, width: int = 256) -> Model:
    """Convolutions, BiLSTM and CTC over images of lines of text."""
    nn = torch.nn

    class Reader(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            layers: list[Any] = []
            for channels, out, pool in (
                (1, 16, 2),
                (16, 32, 2),
                (32, 64, (2, 1)),
                (64, 64, (2, 1)),
            ):
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(pool)]
            self.convolutions = nn.Sequential(*layers)
            self.lstm = nn.LSTM(128, width, num_layers=2, bidirectional=True)
            self.head = nn.Linear(2 * width, characters)

        def forward(self, image: Any) -> Any:  # (B, 1, 32, 320) -> (T, B, C)
            columns = self.convolutions(image).flatten(1, 2).permute(2, 0, 1)
            return self.head(self.lstm(columns)[0])

    def loss(module: Any, images: tuple[Any, ...]) -> Any:
        logs = module(*images).log_softmax(-1)
        T, B, C = logs.shape
        text = torch.arange(20 * B).reshape(B, 20) % (C - 1) + 1
        sizes = torch.full((B,), T), torch.full((B,), 20)
        return nn.functional.ctc_loss(logs, text, *sizes)

    batches = {f"{B} lines": (torch.rand(B, 1, 32, 320),) for B in (1, 16)}
    return Model(
        "ocr", Reader(), {"1 line": batches["1 lines"], "16 lines": batches["16 lines"]}, loss
    )


MODELS: dict[str, Callable[[Any], Model]] = {"tagger": tagger, "ocr": ocr}


# --- calls --------------------------------------------------------------------------------------


def _inference(torch: Any, module: Any, batch: tuple[Any, ...]) -> Callable[[], Any]:
    module = copy.deepcopy(module).eval()

    def call() -> Any:
        with torch.no_grad():
            return module(*batch)

    return call


def _training(torch: Any, model: Model, module: Any, batch: tuple[Any, ...]) -> Callable[[], Any]:
    module = copy.deepcopy(module).train()
    optimizer = torch.optim.Adam(module.parameters())

    def call() -> Any:
        optimizer.zero_grad()
        loss = model.loss(module, batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return call


def _difference(got: Any, expected: Any) -> float:
    return float((got - expected).abs().max() / expected.abs().max())


def measure(model: Model, settings: Settings) -> list[list[str]]:
    """Rows of the table: what is done, milliseconds before and after, and their ratio.

    Raises
    ------
    RuntimeError
        If the results differ by more than rounding, or an LSTM of the model is not replaced.
    """
    torch: Any = import_module("torch")
    ours = copy.deepcopy(model.module)
    import_module("fastlstm.torch").replace(ours, strict=True)
    both = {"before": model.module, "after": ours}
    *_, last = model.batches.items()
    rows = []
    for what, batch, trained in [
        *((f"inference, {what}", batch, False) for what, batch in model.batches.items()),
        (f"training, {last[0]}", last[1], True),
    ]:
        calls = {
            name: _training(torch, model, module, batch)
            if trained
            else _inference(torch, module, batch)
            for name, module in both.items()
        }
        difference = _difference(calls["after"](), calls["before"]())
        if not difference <= _BOUND:
            raise RuntimeError(f"{model.name}, {what}: the results differ by {difference:.1e}")
        _, samples = sample(calls, settings)
        before, after = (Spread.of(samples[name]).median * 1e3 for name in both)
        ratio = Spread.of(ratios(samples["before"], samples["after"]))
        rows.append(
            [
                model.name,
                what,
                f"{before:.3g}",
                f"{after:.3g}",
                f"{ratio.median:.2f} ({ratio.q1:.2f}-{ratio.q3:.2f})",
                f"{difference:.0e}",
            ]
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = Parser(prog="python -m fastlstm.bench.whole_models", description=__doc__)
    parser.add_argument("--threads", default="1", metavar="N", help="or 'all' (default: 1)")
    parser.add_argument("--rounds", type=int, default=11, metavar="N", help="(default: 11)")
    parser.add_argument("--model", choices=MODELS, action="append", help="only this one")
    args = parser.parse_args(argv)
    count = threads.parse_count(args.threads)
    with threads.pinned(count):
        torch: Any = import_module("torch")
        torch.set_num_threads(count)
        torch.manual_seed(0)
        settings = Settings(count, args.rounds, budget_seconds=4.0)
        print("| model | call | before, ms | after, ms | before / after | difference |")
        print("|---|---|--:|--:|--:|--:|")
        for name in args.model or MODELS:
            for row in measure(MODELS[name](torch), settings):
                print(f"| {' | '.join(row)} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
