"""What the tests of Keras' files share."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from support.optional import require

#: Of `cell_named`.
I, H = 4, 5


def repack(path: Path, changed: dict[str, bytes | None]) -> Path:
    """Replace members of a ``.keras`` file, with the right checksums."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members.update(changed)  # type: ignore[arg-type]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)
    return path


def legacy(path: Path, layers: dict[str, dict[str, np.ndarray]], version: str | None) -> Path:
    """As `save_weights` of Keras 2 wrote it."""
    h5py = require("h5py")
    with h5py.File(path, "w") as file:
        if version is not None:
            file.attrs["keras_version"] = version.encode()
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for name, arrays in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [each.encode() for each in arrays]
            for each, array in arrays.items():
                group[each] = array
    return path


def cell_named(prefix: str, seed: int = 0, I: int = I, bias: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (I, 4 * H), "recurrent_kernel": (H, 4 * H), "bias": (bias * H,)}
    return {
        f"{prefix}/{key}:0": rng.normal(size=shape).astype(np.float32)
        for key, shape in shapes.items()
    }
