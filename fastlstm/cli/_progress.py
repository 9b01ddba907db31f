"""The progress bar, on stderr and where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def make_bar(total: int, *, initial: int = 0, **form: Any) -> Any:
    """Return a bar of tqdm's; None where there is no terminal or no tqdm."""
    if not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, initial=initial, file=sys.stderr, **form)


@contextmanager
def counting(total: int, unit: str, quiet: bool) -> Iterator[Callable[[int], object]]:
    """Give a function to call with how much was done; without tqdm it shows percentages."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    bar = make_bar(total, unit=unit, unit_scale=True)
    if bar is not None:
        with bar:
            yield bar.update
        return
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        percent = 100 * done // total if total else 100  # of sequences without steps
        print(f"\r{percent}%", end="", file=sys.stderr, flush=True)

    try:
        yield advance
    finally:
        print(file=sys.stderr)
