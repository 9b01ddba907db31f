"""Keras: whole models in ``.keras`` and ``.h5``, weights alone in ``.weights.h5``; without Keras.

The configuration is read as data and never executed (`config`), arrays come out of HDF5 in a
process of its own (`hdf5`), and `layers` makes LSTMs of both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastlstm.weights.archive import Archive
from fastlstm.weights.contents import Contents, Trained
from fastlstm.weights.keras.config import layers_of
from fastlstm.weights.keras.hdf5 import Hdf5
from fastlstm.weights.keras.layers import find_configured, find_unconfigured
from fastlstm.weights.keras.models import model_of
from fastlstm.weights.listing import NamedArrays
from fastlstm.weights.models import Model, Told, UnclearError
from fastlstm.weights.names import summarised

__all__ = ["read", "read_arrays", "read_model", "write"]

#: Bytes of a configuration, as a multiple of the file's and a bit; as objects JSON takes 20 times.
LARGEST_RATIO, SLACK = 4, 2**20


def read(path: Path) -> Contents:
    """What a file of Keras holds.

    Raises
    ------
    ImportError
        If h5py is not installed.
    ValueError
        If the file is damaged, or another zip archive.
    """
    try:
        with _opened(path) as (file, text, version):
            layers = [] if text is None else _layers(path, text)
            if layers:
                parts = find_configured(file, layers, version)
            else:
                parts = find_unconfigured(file, version)
    except RecursionError as error:
        raise ValueError(f"{path}: damaged: nested too deeply") from error
    found, refused, others = parts
    return Contents(path, "Keras", tuple(found), tuple(refused), summarised(others))


def read_arrays(path: Path) -> NamedArrays:
    """All arrays of a file of Keras, by their places in it; errors as `read`."""
    with _opened(path) as (file, _, _):
        unread = {name: each.problem for name, each in file.arrays.items() if each.problem}
        names = [name for name in file.arrays if name not in unread]
        return NamedArrays(path, dict(zip(names, file.read(names), strict=True)), unread)


def read_model(path: Path, told: Told) -> Model:
    """The network that a model of Keras is; errors as `read`, or if it is none."""
    if told.of_arrays:
        raise ValueError(
            f"{told.of_arrays[0]}: got one, but the model's configuration says what feeds what"
        )
    try:
        with _opened(path) as (file, text, version):
            layers = [] if text is None else _layers(path, text)
            if not layers:
                raise UnclearError(
                    "has no configuration that can be read, which says what feeds what: save the "
                    "whole model, or see fastlstm.weights.arrays"
                )
            return model_of(file, layers, version)
    except RecursionError as error:
        raise ValueError(f"{path}: damaged: nested too deeply") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Hdf5, str | None, str | None]]:
    """Open a file of Keras: its arrays, its configuration and the version of Keras, if told."""
    with path.open("rb") as opened:
        zipped = opened.read(4) == b"PK\x03\x04" or path.suffix.lower() == ".keras"
    text: str | None
    version: str | None
    if zipped:
        image, text, version = _from_archive(path)
    else:
        image, text, version = path.read_bytes(), None, None
    with Hdf5(path, image) as file:
        if not zipped:
            text, version = _attributes(file)
        yield file, text, version


def write(trained: Trained, path: Path) -> None:
    """Write a layer as a Keras model, see `export`; equal layers make equal files."""
    from fastlstm.weights.keras.export import write_model

    write_model(trained, path)


def _from_archive(path: Path) -> tuple[bytes, str, str | None]:
    """Return the HDF5 file in a ``.keras`` file, the configuration and the version of Keras."""
    with Archive(path, ".keras file") as archive:
        for name in ("config.json", "model.weights.h5"):
            if name not in archive:
                raise ValueError(f"{path}: no {name} in it, not a .keras file of HDF5 weights")
        config = _small_text(path, archive, "config.json")
        metadata = "{}"
        if "metadata.json" in archive:
            metadata = _small_text(path, archive, "metadata.json")
        image = archive.read("model.weights.h5")
    try:
        version = json.loads(metadata).get("keras_version")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path}: metadata.json is damaged: {error}") from error
    return image, config, version if isinstance(version, str) else None


def _small_text(path: Path, archive: Archive, name: str) -> str:
    if archive.size(name) > LARGEST_RATIO * path.stat().st_size + SLACK:
        raise ValueError(f"{path}: {name} takes {archive.size(name)} bytes: damaged")
    try:
        return archive.read(name).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {name} is damaged: {error}") from error


def _attributes(file: Hdf5) -> tuple[str | None, str | None]:
    """Return configuration and version, where an HDF5 file has them."""
    root, weights = file.groups.get("", {}), file.groups.get("model_weights", {})
    text = root.get("model_config")
    version = root.get("keras_version", weights.get("keras_version"))
    if isinstance(version, list) and len(version) == 1:  # written as an array
        (version,) = version
    return text if isinstance(text, str) else None, version if isinstance(version, str) else None


def _layers(path: Path, text: str) -> Any:
    try:
        return layers_of(text)
    except ValueError as error:
        raise ValueError(f"{path}: the model's configuration is damaged: {error}") from error
