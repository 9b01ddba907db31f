"""Packages that only parts of this one need: imported where they are used, or asked for by name."""

from __future__ import annotations

import importlib
from typing import Any


def import_for(
    what: str,
    package: str,
    extra: str | None = None,
    title: str | None = None,
    *,
    at_least: tuple[int, int] | None = None,
) -> Any:
    """Import a package that need not be installed.

    Parameters
    ----------
    what : str
        What can't be done without it: "writing .onnx".
    package : str
    extra : str, optional
        Of this package, that installs it.
    title : str, optional
        What it is called, where that is not the package's name.
    at_least : (int, int), optional
        The oldest version that will do.

    Raises
    ------
    ImportError
        As of `missing`, or if the version is older.
    """
    try:
        found = importlib.import_module(package)
    except ImportError as error:
        raise missing(what, package, extra, title) from error
    if at_least is not None:
        version = found.__version__
        if tuple(map(int, version.split(".")[:2])) < at_least:
            oldest = ".".join(map(str, at_least))
            raise ImportError(f"{what} needs {title or package} {oldest} or later, found {version}")
    return found


def missing(
    what: str, package: str, extra: str | None = None, title: str | None = None
) -> ImportError:
    """Return the error that says what to install, for what `import_for` is given."""
    install = package if extra is None else f'"fastlstm[{extra}]"'
    return ImportError(f"{what} needs {title or package}: pip install {install}")
