"""Packages that only parts of this one need: imported where they are used, or asked for by name."""

from __future__ import annotations

import importlib
from typing import Any


def import_for(what: str, package: str, extra: str | None = None, title: str | None = None) -> Any:
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

    Raises
    ------
    ImportError
        As of `missing`.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise missing(what, package, extra, title) from error


def missing(
    what: str, package: str, extra: str | None = None, title: str | None = None
) -> ImportError:
    """Return the error that says what to install, for what `import_for` is given."""
    install = package if extra is None else f'"fastlstm[{extra}]"'
    return ImportError(f"{what} needs {title or package}: pip install {install}")
