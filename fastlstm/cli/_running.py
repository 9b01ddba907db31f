"""What ``run`` does with a model and arrays: apply, write, compare, draw."""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from fastlstm.cli._applying import Applied, AppliedLayer, AppliedNetwork, Numbers, blocks_of
from fastlstm.cli._arrays import STANDARD, Array
from fastlstm.cli._comparing import Comparison
from fastlstm.cli._messages import UserError, note, say
from fastlstm.cli._models import (
    batch_first_of,
    is_forecaster,
    layout_of,
    load_network,
    model_of,
    open_input,
    open_tokens,
    present_steps,
)
from fastlstm.cli._outputs import WRITERS, Block, Layout, Part, new_file
from fastlstm.cli._pictures import check_picture, drawing
from fastlstm.cli._progress import counting
from fastlstm.training.predictions import UndecidedError
from fastlstm.weights import Found


def run_model(args: argparse.Namespace, found: Found) -> None:
    """Apply the weights in ``args.model`` to ``args.input``, write, compare and draw."""
    _check(args, found)
    with ExitStack() as files:
        picture = args.plot and files.enter_context(new_file(args.plot, args.force))
        if picture:
            check_picture(args.plot)
        output = args.output and files.enter_context(new_file(args.output, args.force))
        model, batch_first_of_file = _load(args, found)
        stored, is_table = _open(args, model)
        batch_first = layout_of(args, "INPUT", batch_first_of_file, stored)
        writer, layout = None, _layout(model, stored, batch_first)
        if output:
            suffix = args.output.suffix.lower() if str(args.output) != STANDARD else ""
            suffix = suffix or (".csv" if is_table else ".npy")
            writer, layout = WRITERS[suffix], _as_written(args, suffix, layout, model)

        # Every layout becomes (T, B, I), without a copy.
        x = stored[:, None] if stored.ndim == 2 else stored
        x = x.swapaxes(0, 1) if batch_first else x
        present = present_steps(args, x, batch_first)
        if isinstance(model, AppliedNetwork):
            present = model.checked(x, present, args.input)
        comparison = None
        if args.targets is not None:
            assert isinstance(model, AppliedNetwork)  # as was checked
            comparison = Comparison(args, model.network, x, present, stored.ndim == 2, batch_first)
        start = time.perf_counter()
        with counting(x.shape[0] * x.shape[1], "step", args.quiet) as advance:
            blocks = blocks_of(model, x, present, args.batch_size, args.chunk, advance)
            if comparison is not None:
                blocks = comparison.reading(blocks)
            if writer is not None:
                writer.write(output, layout, _made(args, blocks, layout.parts))
            else:
                deque(blocks, 0)
        seconds = time.perf_counter() - start
        if comparison is not None:
            with _deciding(args):
                comparison.evaluate()
            if picture:
                with drawing(args.plot):
                    comparison.draw(picture)
    if writer is not None:
        _report(args, layout, stored, batch_first, batch_first_of_file, seconds)
    if comparison is not None:
        comparison.print()


def _check(args: argparse.Namespace, found: Found) -> None:
    """Refuse what can't be before anything is opened."""
    suffix = "" if args.output is None else args.output.suffix.lower()
    if args.output is not None and str(args.output) != STANDARD and suffix not in WRITERS:
        raise UserError(f"{args.output}: unknown suffix, OUTPUT can be {' or '.join(WRITERS)}")
    if args.plot is not None and args.targets is None:
        raise UserError("--plot: needs --targets, the right answers")
    for name in ("targets", "logits"):
        if getattr(args, name) and (found.network is None or args.no_head):
            raise UserError(f"--{name}: needs a network, which says what its answers are; "
                            f"{args.model} is none, or --no-head leaves them out")  # fmt: skip
    if args.targets is not None and args.missing == "drop":
        raise UserError("--missing: got drop with --targets, whose lines have to keep step")
    if is_forecaster(found) and not args.no_head:
        raise UserError(f"{args.input}: expected a table, as {args.model} forecasts series in them")


def _load(args: argparse.Namespace, found: Found) -> tuple[Applied, bool | None]:
    """Return what is applied, and whether the file says that its arrays are (B, T, I)."""
    if found.network is not None and not args.no_head:
        return AppliedNetwork(load_network(args), args.logits), batch_first_of(found)
    model = model_of(args, found, head=not args.no_head, batch_first=False)
    if model.lstm.merge_mode is None:
        raise UserError(f"{args.model}: merge_mode=None gives two results, run writes one")
    return AppliedLayer(model), model.batch_first


def _open(args: argparse.Namespace, model: Applied) -> tuple[Array, bool]:
    """Return INPUT, and whether it was a table."""
    network = model.network if isinstance(model, AppliedNetwork) else None
    features = None if network is None else network.features
    if network is not None and network.embedding is not None:
        return open_tokens(args, "INPUT", network.embedding, features)
    return open_input(args, "INPUT", model.lstm.input_size, features)


def _layout(model: Applied, stored: Array, batch_first: bool) -> Layout:
    """Return all that there is to write."""
    if model.each_step:
        return Layout(stored.shape[:-1], batch_first, model.parts, model.constants)
    # One answer for a sequence: written as a sequence of answers, one for each.
    count = 1 if stored.ndim == 2 else stored.shape[0 if batch_first else 1]
    return Layout((count,), False, model.parts, model.constants)


def _as_written(args: argparse.Namespace, suffix: str, layout: Layout, model: Applied) -> Layout:
    """Return what a file of that suffix holds of it."""
    if WRITERS[suffix].is_table and len(layout.outer) == 2:
        raise UserError(f"{args.output}: a table cannot hold three dimensions, use .npy")
    if suffix != ".npy":
        return layout
    if model.heads > 1:
        names = ", ".join(part.name for part in layout.parts)
        raise UserError(f"{args.output}: holds one array, but there are {names}; use .npz or .csv")
    return layout._replace(parts=layout.parts[:1])


def _made(
    args: argparse.Namespace, blocks: Iterator[Numbers], parts: list[Part]
) -> Iterator[Block]:
    """Make what is written of the numbers of each block."""
    for times, batch, z, present in blocks:
        with _deciding(args):
            arrays = [part.made_of(z, present) for part in parts]
        yield times, batch, arrays


@contextmanager
def _deciding(args: argparse.Namespace) -> Iterator[None]:
    """Tell of NaN among scores of classes."""
    try:
        yield
    except UndecidedError as error:
        raise UserError(
            f"{args.input}: NaN in it makes scores of classes NaN, which stand for none; "
            "--missing zero, mean, forward or drop fills what a table lacks"
        ) from error


def _report(
    args: argparse.Namespace,
    layout: Layout,
    stored: Array,
    batch_first: bool,
    of_file: bool | None,
    seconds: float,
) -> None:
    """Tell what was written, unless it is JSON alone that is asked for."""
    axes = ""
    if stored.ndim == 3 and of_file is None:
        how = "as asked, (B, T, I)" if batch_first else "(T, B, I), --batch-first is (B, T, I)"
        axes = f"; MODEL does not say which axis is time: {how}"
    shapes = [f"shape {(*layout.outer, *part.inner)}, {part.dtype}" for part in layout.parts]
    if len(layout.parts) > 1:
        shapes = [f"{p.name} of {each}" for p, each in zip(layout.parts, shapes, strict=True)]
    report = f"{args.output}: {'; '.join(shapes)}, {seconds:.3g} s{axes}"
    if str(args.output) != STANDARD and not args.json and args.engine is None:
        say(report)
    elif axes and not args.quiet:
        note(report)
