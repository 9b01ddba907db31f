"""The rule of `fuzz_weights.py`, with inputs that libFuzzer finds by the code that they reach.

    python tests/tools/fuzz_weights_guided.py --seconds 3600        # needs atheris

Keras files are left to `fuzz_weights.py`: each is read in a process of its own, too slow to guide.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fastlstm.weights"]):
    import fastlstm.weights.audio
    import fastlstm.weights.npz
    import fastlstm.weights.onnx
    import fastlstm.weights.pytorch
    import fastlstm.weights.safetensors  # noqa: F401

import fuzz_weights

#: Where a file costs no disk; else the usual place.
MEMORY = Path("/dev/shm")


def main() -> None:
    """Fuzz; libFuzzer reports, and ends the process with code 0 if it found nothing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="0 for one by the clock")
    parser.add_argument("--only", default="", help="begin with files whose names hold this")
    parser.add_argument("--keep", type=Path, help="folder for findings")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz", dir=MEMORY if MEMORY.is_dir() else None))
    keep = options.keep or folder
    keep.mkdir(exist_ok=True)
    corpus = folder / "corpus"
    corpus.mkdir()
    for name, data in fuzz_weights.seeds(folder).items():
        if not name.endswith((".keras", ".h5")) and options.only in name:
            (corpus / name).write_bytes(data)
    path = folder / f"now-{os.getpid()}"

    def one_input(data: bytes) -> None:
        path.write_bytes(data)
        fuzz_weights.outcome(path)

    arguments = [
        sys.argv[0],
        str(corpus),
        f"-max_total_time={options.seconds}",
        f"-seed={options.seed}",
        f"-timeout={fuzz_weights.SECONDS}",
        "-rss_limit_mb=4096",
        "-max_len=20000",
        f"-artifact_prefix={keep}/",
        "-print_final_stats=1",
    ]
    atheris.Setup(arguments, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
