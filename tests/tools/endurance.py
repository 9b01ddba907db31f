"""Long runs: streams that stay finite and repeat to the bit, and memory that stays flat.

    python tests/tools/endurance.py --steps 10000000 --loads 100000

Steps   One stream by ``step``, a second by ``push`` in chunks of chance lengths, and the layer
        called with the state of its last call, all over the same inputs: equal bits.
Loads   Layers, streams, tapes and files of weights, made, used and freed.

Memory is the process's resident set, and the blocks that Python's allocator has handed out.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import mmap
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fastlstm
from fastlstm import LSTM, BiLSTM

#: Steps whose inputs and outputs are in memory at a time.
BLOCK = 5000

#: KiB by which a resident set may differ: the allocator's arenas, not a leak of one byte a round.
SLACK = 2048

#: Blocks, of an object each or so, by which they may differ: what is made once.
BLOCKS_SLACK = 50


def memory() -> tuple[int, int]:
    """KiB of the process that are in memory, and blocks of Python's; first all caches give back."""
    gc.collect()
    sys._clear_type_cache()  # it keeps names that were looked up, thousands of them
    blocks = sys.getallocatedblocks()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of the GNU library
    if trim is not None:
        trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * mmap.PAGESIZE // 1024, blocks


class Streaming:
    """Three ways through the same endless sequence."""

    def __init__(self, dtype: type) -> None:
        self.layer = LSTM(3, 12, 2, dtype=dtype, seed=1)
        # Weights that keep the states moving.
        self.layer.load_parameters((4 * self.layer.parameters).astype(dtype))
        self.rng, self.cuts = np.random.default_rng(2), np.random.default_rng(3)
        self.steps, self.pushes = self.layer.stream(), self.layer.stream()
        self.state = self.steps.state
        self.y: np.ndarray = np.empty((BLOCK, 12), dtype)
        self.again: np.ndarray = np.empty((BLOCK, 12), dtype)
        self.done = 0

    def block(self) -> None:
        """BLOCK steps more."""
        x = self.rng.normal(size=(BLOCK, 3)).astype(self.layer.dtype)
        step = self.steps.step
        for x_t, y_t in zip(x, self.y, strict=True):
            step(x_t, y_t)
        t = 0
        while t < BLOCK:
            n = int(self.cuts.integers(1, 1000))
            self.again[t : t + n] = self.pushes.push(x[t : t + n])
            t += n
        whole, self.state = self.layer(x[:, np.newaxis], self.state)
        if not np.isfinite(self.y).all():
            raise SystemExit(f"not finite within {BLOCK} steps of step {self.done}")
        for other in (self.again, whole[:, 0]):
            if other.tobytes() != self.y.tobytes():
                raise SystemExit(f"other bits within {BLOCK} steps of step {self.done}")
        self.done += BLOCK

    def states_agree(self) -> bool:
        """Whether all three ways end in one state."""
        states = [*zip(self.steps.state, self.pushes.state, self.state, strict=True)]
        return all(len({a.tobytes() for a in arrays}) == 1 for arrays in states)


class Loading:
    """Makes, uses and frees all that holds memory of C."""

    def __init__(self, folder: Path) -> None:
        self.paths = []
        for dtype in (np.float32, np.float64):
            for make in (LSTM, BiLSTM):
                path = folder / f"{make.__name__}-{np.dtype(dtype).name}.npz"
                fastlstm.save(make(3, 8, 2, dtype=dtype, seed=1), path, overwrite=True)
                self.paths.append(path)
        self.x = {
            np.dtype(dtype): np.random.default_rng(4).normal(size=(7, 2, 3)).astype(dtype)
            for dtype in (np.float32, np.float64)
        }
        self.done = 0

    def load(self) -> None:
        """One layer from a file and one anew, each used in every way."""
        loaded = fastlstm.load(self.paths[self.done % len(self.paths)])
        made = LSTM(3, 1 + self.done % 40, 1 + self.done % 2, seed=0)
        for layer in (loaded, made):
            x = self.x[layer.dtype]
            y, _ = layer(x)
            recorded, _, tape = layer.record(x)
            tape.backward(recorded)
            if layer.num_directions == 1:
                stream = layer.stream(2)
                if stream.push(x).tobytes() != y.tobytes() or stream.step(x[0]) is None:
                    raise SystemExit(f"other bits after {self.done} loads")
        self.done += 1


def growth(work: Callable[[], None], rounds: int, warm_up: int) -> tuple[int, int]:
    """Do `work` over and over; return KiB and blocks of Python's that were not given back."""
    for _ in range(warm_up):
        work()
    before = memory()
    for _ in range(rounds - warm_up):
        work()
    after = memory()
    return after[0] - before[0], after[1] - before[1]


def main() -> int:
    """Run, print the figures; 1 if memory grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50_000, help="at least 15,000")
    parser.add_argument("--loads", type=int, default=500, help="at least 300")
    options = parser.parse_args()
    flat = True

    def report(what: str, grown: tuple[int, int]) -> None:
        nonlocal flat
        flat &= grown[0] <= SLACK and grown[1] <= BLOCKS_SLACK
        print(f"{what}: memory {grown[0]:+d} KiB, blocks of Python {grown[1]:+d}", flush=True)

    for dtype in (np.float32, np.float64):
        streaming = Streaming(dtype)
        blocks = max(3, options.steps // BLOCK // 2)
        grown = growth(streaming.block, blocks, warm_up=max(1, blocks // 20))
        if not streaming.states_agree():
            raise SystemExit("states differ at the end")
        name = np.dtype(dtype).name
        report(f"{streaming.done} steps of {name}, finite, bits equal to a replay", grown)
    with tempfile.TemporaryDirectory() as folder:
        loading = Loading(Path(folder))
        grown = growth(loading.load, options.loads, warm_up=max(100, options.loads // 20))
    report(f"{loading.done} loads and as many layers made anew, freed", grown)
    print("flat" if flat else "memory grew")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
