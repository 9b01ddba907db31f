"""Pictures that commands write, by matplotlib: what is wrong is known before the long work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from fastlstm._extras import import_for
from fastlstm.cli._messages import UserError


def check_picture(path: Path) -> None:
    """Find out whether there can be a picture, before what is drawn is there."""
    backend_bases = import_for("--plot", "matplotlib.backend_bases", "cli", "matplotlib")
    types = backend_bases.FigureCanvasBase.get_supported_filetypes()
    suffixes = [f".{name}" for name in types if name != "pgf"]  # that one needs LaTeX
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{path}: unknown suffix, a picture can be {', '.join(suffixes)}")


@contextmanager
def drawing(path: Path) -> Iterator[None]:
    """Report a picture that can't be drawn as the user's mistake."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:  # matplotlib and its backends have many
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"--plot: {path} could not be drawn: {reason}") from error


#: Draws on matplotlib's axes, and returns them.
Panel: TypeAlias = Callable[[Any], Any]


def save_picture(path: Path, panels: Sequence[Panel], title: str) -> None:
    """Draw panels below each other."""
    Figure = import_for("--plot", "matplotlib.figure", "cli", "matplotlib").Figure
    figure = Figure(figsize=(9.0, 1.2 + 3.6 * len(panels)), layout="constrained")
    figure.suptitle(title)
    for axes, draw in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        draw(axes)
    figure.savefig(path, dpi=130)


def prefix_title(axes: Any, name: str) -> Any:
    """Put what is drawn before what is seen of it; return axes."""
    axes.set_title(": ".join(filter(None, (name, axes.get_title()))))
    return axes
