"""Runs of training: losses over epochs, norms of gradients over steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import shown
from fastlstm.plot._axes import as_axes, as_numbers, line, logarithmic, marked

if TYPE_CHECKING:
    from fastlstm.training import Trainer
    from fastlstm.training.history import Epoch


def learning_curves(
    runs: Mapping[str, Trainer | Sequence[Epoch]],
    *,
    unit: str = "loss",
    ax: Any = None,
) -> Any:
    """Draw the losses of runs over their epochs.

    Parameters
    ----------
    runs : mapping of names to `Trainer`, or to its ``history``
        Each with at least one epoch. The name of a run that needs none may be "".
    unit : str, default "loss"
        What the losses are, and their unit: of the axis, which is logarithmic where all losses are
        above 0.
    ax : axes of matplotlib, optional

    Returns
    -------
    axes
        Of each run a thin line for training and, if there is validation, one with markers for it.
        The title tells the least validation loss, in which epoch and of which run.

    Raises
    ------
    ImportError
        Without matplotlib; the message names the extra that brings it.
    TypeError, ValueError
        If an argument is not as described.
    """
    histories = {name: _history(name, run) for name, run in _named("runs", runs).items()}
    axes = as_axes(ax)
    scores: list[tuple[float, int, str]] = []
    positive = True
    for k, (name, history) in enumerate(histories.items()):
        look, epochs = line(k), np.arange(1, len(history) + 1)
        tail = f"{name}: " if name else ""
        training = np.array([epoch.training.loss for epoch in history])
        scored = [n for n, epoch in enumerate(history) if epoch.validation is not None]
        losses = np.array([history[n].validation.loss for n in scored])  # type: ignore[union-attr]
        thin = {**look, "linewidth": 1.0, "marker": "." if len(history) < 2 else ""}
        axes.plot(epochs, training, label=f"{tail}training", **thin)
        positive = positive and bool((training > 0).all() and (losses > 0).all())
        if scored:
            thick = {**look, "linewidth": 1.8, "markevery": marked(len(scored))}
            axes.plot(epochs[scored], losses, label=f"{tail}validation", **thick)
            known = ~np.isnan(losses)  # a run that diverged has NaN
            at = zip(losses[known].tolist(), epochs[scored][known].tolist(), strict=True)
            scores += [(loss, epoch, name) for loss, epoch in at]
    if scores:
        loss, epoch, name = min(scores)
        axes.axvline(epoch, color="black", linewidth=0.8, linestyle=":")
        of = f", {name}" if name and len(histories) > 1 else ""
        axes.set_title(f"least validation loss {loss:.4g}, epoch {epoch}{of}")
    if positive:
        logarithmic(axes, "y")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epoch")
    axes.set_ylabel(unit)
    axes.legend()
    axes.grid(alpha=0.3)
    return axes


def gradient_norms(
    runs: Mapping[str, npt.ArrayLike],
    *,
    clip: float | None = None,
    ax: Any = None,
) -> Any:
    """Draw the norms of gradients over the steps of runs, before they were clipped.

    Parameters
    ----------
    runs : mapping of names to array_like (n,)
        Norms of a run's steps, such as `fastlstm.training.GradientNorms` collects.
    clip : float, optional
        The largest norm that was let through: it is drawn, and the legend tells of how many steps
        the gradient was longer.
    ax : axes of matplotlib, optional

    Returns
    -------
    axes
        The title tells the longest gradient.

    Raises
    ------
    ImportError, TypeError, ValueError
        As of `learning_curves`.
    """
    norms = {name: as_numbers(f"runs[{name!r}]", each, 1)
             for name, each in _named("runs", runs).items()}  # fmt: skip
    if clip is not None and not (isinstance(clip, int | float) and clip > 0):
        raise ValueError(f"clip: got {shown(clip)}, expected a number above 0")
    known = {name: each[~np.isnan(each)] for name, each in norms.items()}
    for name, each in known.items():
        if not each.size:
            raise ValueError(f"runs[{name!r}]: holds NaN alone")
    axes = as_axes(ax)
    for k, (name, each) in enumerate(norms.items()):
        label = name
        if clip is not None:
            label += f"{', ' if name else ''}longer than {clip:g}: {(each > clip).mean():.0%}"
        look = {**line(k), "markevery": marked(each.size), "linewidth": 1.0}
        axes.plot(np.arange(1, each.size + 1), each, label=label, **look)
    if clip is not None and math.isfinite(clip):
        axes.axhline(clip, color="black", linewidth=0.8, linestyle=":")
    longest = max(known, key=lambda name: float(known[name].max()))
    step = int(np.nanargmax(norms[longest]))
    of = f" of {longest}" if longest and len(norms) > 1 else ""
    axes.set_title(f"longest gradient{of} {norms[longest][step]:.3g}, step {step + 1}")
    if all((each > 0).all() for each in norms.values()):
        logarithmic(axes, "y")
    axes.set_xlabel("step")
    axes.set_ylabel("norm of the gradient")
    if clip is not None or any(norms):
        axes.legend()
    axes.grid(alpha=0.3)
    return axes


def _named(name: str, runs: Any) -> Mapping[str, Any]:
    if not isinstance(runs, Mapping):
        raise TypeError(f"{name}: got {type(runs).__name__}, expected a mapping of names to runs")
    if not runs:
        raise ValueError(f"{name}: got none, expected one at least")
    return runs


def _history(name: str, run: Any) -> list[Epoch]:
    history = getattr(run, "history", run)
    if not isinstance(history, Iterable) or isinstance(history, str):
        raise TypeError(f"runs[{name!r}]: got {type(run).__name__}, expected a Trainer, or its "
                        "history")  # fmt: skip
    epochs = list(history)
    if not epochs:
        raise ValueError(f"runs[{name!r}]: has no epoch that is complete")
    if not all(hasattr(epoch, "training") and hasattr(epoch, "validation") for epoch in epochs):
        raise TypeError(f"runs[{name!r}]: got {shown(epochs[0])}, expected epochs of a history")
    return epochs
