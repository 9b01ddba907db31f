"""Pictures that commands write, by matplotlib: what is wrong is known before the long work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
