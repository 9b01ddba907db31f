"""A network's answers beside the right ones: figures, and a picture.

Letters: T time steps, B batch, N numbers of z.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm import plot
from fastlstm.cli._applying import Numbers
from fastlstm.cli._arrays import Array
from fastlstm.cli._messages import UserError, as_user_errors, say
from fastlstm.cli._pictures import Panel, prefix_title, save_picture
from fastlstm.cli._targets import Arrangement, read_targets, read_weights
from fastlstm.training import Evaluation, HeadSpec, Network
from fastlstm.training.evaluation import Truth, nearest_median
from fastlstm.training.layout import ONLY
from fastlstm.training.predictions import decided

#: Targets that are drawn.
_DRAWN = 4


class Comparison:
    """What is right is read and checked first; then the network's numbers, as they come.

    Parameters
    ----------
    args : Namespace
    network : Network
    x : array (T, B, I)
    present : array (T, B) or None
        Where a step exists.
    is_single : bool
        Whether INPUT is one sequence, without an axis for it.
    batch_first : bool
        Whether the user's arrays are (B, T, ...).
    """

    def __init__(
        self,
        args: argparse.Namespace,
        network: Network,
        x: Array,
        present: Array | None,
        is_single: bool,
        batch_first: bool,
    ) -> None:
        for name, spec in network.heads.items():
            if spec.kind == "own":
                raise UserError(
                    f"--targets: {args.model} was trained on a loss of its own"
                    f"{f' of {name}' if name else ''}, which only a program has: "
                    "Network.load(path, loss=function).evaluate"
                )
        self._args, self._network, self._present = args, network, present
        self._arranged = Arrangement(network, is_single, batch_first)
        self._y = y = read_targets(args, network, self._arranged)
        weights = read_weights(args, self._arranged)
        # Nothing of INPUT is guessed to be padding.
        lengths = len(x) if present is None and weights is not None else None
        names = {"x": args.input, "y": args.targets, "weights": args.weights, "season": "--season"}
        names |= {f"y[{head!r}]": f"{args.targets}: {head}" for head in network.heads}
        self._shape = x.shape[:2] if network.each_step else x.shape[1:2]
        mask = None if present is None else self._arranged.of_steps(present)
        with as_user_errors({name: str(path) for name, path in names.items()}):
            self._truth = Truth(
                network,
                self._arranged.of_steps(x[..., 0] if network.embedding is not None else x),
                y,
                weights,
                lengths,
                mask,
                args.season,
                {},
            )
        self._z: dict[str, Array] = {
            head: np.zeros((*self._shape, spec.width), network.lstm.dtype)
            for head, spec in network.heads.items()
        }

    def reading(self, blocks: Iterator[Numbers]) -> Iterator[Numbers]:
        """Keep the numbers of all blocks on their way."""
        for block in blocks:
            for head, z in block.z.items():
                if self._network.each_step:
                    self._z[head][block.times, block.batch] = z
                else:
                    self._z[head][block.times] = z[:, 0]
            yield block

    def evaluate(self) -> None:
        """Compare them with what is right."""
        rows = self._z
        if self._network.each_step:
            batch, arranged = self._truth.batch, self._arranged
            rows = {head: batch.rows_of_given(arranged.of_steps(z)) for head, z in rows.items()}
        self._found = self._truth.compared(rows)

    def print(self) -> None:
        """Print the figures."""
        by_head = {ONLY: self._found} if ONLY in self._network.heads else self._found
        if self._args.json:
            file = None if self._args.output is None else str(self._args.output)
            figures: Any = {head: found.as_dict() for head, found in by_head.items()}
            print(json.dumps({"file": file, "evaluation": figures.get(ONLY, figures)}, indent=2))
            return
        for head, found in by_head.items():
            for line in [*filter(None, (f"{head}:",) if head else ()), *str(found).splitlines()]:
                say(line)

    def draw(self, path: Path) -> None:
        """Draw confusions of classes, measures of labels, answers beside what is right."""
        panels: list[Panel] = []
        for head, spec in self._network.heads.items():
            found = self._found if head == ONLY else self._found[head]
            if spec.is_decision:
                panels.append(partial(_draw_decisions, head, found))
            else:
                panels += self._panels(head, spec, found)
        save_picture(path, panels, f"{self._args.model} on {self._args.input}")

    def _panels(self, head: str, spec: HeadSpec, found: Evaluation) -> list[Panel]:
        """Return panels of the first targets: of the longest sequence, or a point for each."""
        scaling = self._network.scaling if head == ONLY else None
        answers = decided(spec, self._z[head], scaling, None)
        truth = np.asarray(self._y if head == ONLY else self._y[head], np.float64)
        if self._network.each_step:
            chosen = self._longest()
            truth, answers = self._arranged.of_steps(truth)[chosen], answers[chosen]
        band = None
        if spec.quantiles is not None:
            low, high = answers[..., 0], answers[..., -1]
            band = f"{spec.quantiles[0]:g} to {spec.quantiles[-1]:g}", low, high
            answers = answers[..., nearest_median(spec.quantiles)]
        names = spec.targets or [f"{head or 'y'} {k + 1}" for k in range(spec.outputs)]
        if len(names) == 1 and not spec.targets:
            names = [head or "y"]

        def draw(k: int, axes: Any) -> Any:
            if self._network.each_step:
                plot.forecast(
                    answers[:, k],
                    truth=truth[:, k],
                    naive=self._naive(found, truth[:, k]),
                    interval=band and (band[0], band[1][:, k], band[2][:, k]),
                    ax=axes,
                )
            else:
                plot.predicted_over_true(truth[:, k], answers[:, k], ax=axes)
            return prefix_title(axes, names[k])

        return [partial(draw, k) for k in range(min(spec.outputs, _DRAWN))]

    def _longest(self) -> tuple[Array, int]:
        """Return the steps of the sequence that has most of them, and which it is."""
        if self._present is None:
            return np.arange(self._shape[0]), 0
        longest = int(self._present.sum(axis=0).argmax())
        return np.flatnonzero(self._present[:, longest]), longest

    def _naive(self, found: Evaluation, truth: Array) -> tuple[str, Array] | None:
        """Return the best forecast without a model, of a series (T,), and its name."""
        if (name := found.best_naive) is None:
            return None
        lag = 1 if name == "persistence" else self._args.season
        before = np.full(len(truth), np.nan)
        before[lag:] = truth[:-lag]
        return f"{name}: RMSE {found.naive[name][0]:.3g}, model {found.rmse:.3g}", before


def _draw_decisions(head: str, found: Evaluation, axes: Any) -> Any:
    """Draw confusions of classes, or measures of labels."""
    if found.confusion is not None and found.confusion.ndim == 2:
        plot.confusion_matrix(found, ax=axes)
    else:
        plot.label_scores(found, ax=axes)
    return prefix_title(axes, head)
