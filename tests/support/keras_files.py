"""What the tests of Keras' files share."""

from __future__ import annotations

import zipfile
from pathlib import Path


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
