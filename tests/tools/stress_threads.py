"""Python threads that share layers for as long as one likes; every answer is compared in bits.

    python tests/tools/stress_threads.py --seconds 60

Each thread calls, records, goes backward and feeds streams of its own, in an order by chance, on
layers that all share. Meanwhile another one changes the parameters of one layer between two known
vectors (an answer must be one of the two) and the limit of threads; and all push into one stream,
which refuses or takes each whole push: what it took must be a sequence, each of it once.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import fastlstm
from fastlstm import LSTM, BiLSTM

Bits = tuple[bytes, ...]


def bits(*arrays: Any) -> Bits:
    """Bytes of arrays, to be compared."""
    return tuple(array.tobytes() for array in arrays)


class Shared:
    """A layer, inputs for it, and the bits of one thread's answers.

    Parameters
    ----------
    layer : LSTM or BiLSTM
        The one that all threads call.
    T, B : int
        Size of the input.
    vectors : sequence of ndarray, optional
        The parameters that it has by turns; its own where none are given.
    """

    def __init__(self, layer: Any, T: int, B: int, vectors: Sequence[np.ndarray] = ()) -> None:
        rng = np.random.default_rng(T)
        D, L, H, P = layer.num_directions, layer.num_layers, layer.hidden_size, layer.output_size
        self.layer = layer
        self.x = rng.normal(size=(T, B, layer.input_size)).astype(layer.dtype)
        self.lengths = rng.integers(0, T + 1, B)
        self.state = tuple(rng.normal(size=(L * D, B, n)).astype(layer.dtype) for n in (P, H))
        self.dy = rng.normal(size=(T, B, D * P)).astype(layer.dtype)
        self.dstate = tuple(rng.normal(size=(L * D, B, n)).astype(layer.dtype) for n in (P, H))
        self.kinds: list[Callable[[], Bits]] = [self.call, self.ragged, self.train]
        if D == 1:
            self.kinds.append(self.stream)
        self.vectors = list(vectors) or [layer.parameters.copy()]
        self.expected: dict[str, set[Bits]] = {kind.__name__: set() for kind in self.kinds}
        for vector in self.vectors:
            layer.load_parameters(vector)
            for kind in self.kinds:
                self.expected[kind.__name__].add(kind())

    def call(self) -> Bits:
        """Run whole sequences."""
        y, state = self.layer(self.x, self.state)
        return bits(y, *state)

    def ragged(self) -> Bits:
        """Run sequences of different lengths."""
        y, state = self.layer(self.x, self.state, lengths=self.lengths)
        return bits(y, *state)

    def train(self) -> Bits:
        """Record and go backward."""
        y, state, tape = self.layer.record(self.x, self.state)
        grads = tape.backward(self.dy, self.dstate)
        return bits(y, *state, grads.x, grads.h_0, grads.c_0, grads.params)

    def stream(self) -> Bits:
        """Feed a new stream steps and pushes; the layer's answer, if all goes well."""
        stream = self.layer.stream(self.x.shape[1])
        stream.state = self.state
        y = np.empty((*self.x.shape[:2], self.layer.output_size), self.layer.dtype)
        t = 0
        while t < len(self.x):
            n = random.randrange(1, 6)
            if n == 1:
                stream.step(self.x[t], y[t])
            else:
                y[t : t + n] = stream.push(self.x[t : t + n])
            t += n
        return bits(y, *stream.state)


class OneStream:
    """A stream that all threads push into. It forgets nothing, so no two answers are alike."""

    def __init__(self) -> None:
        self.layer = LSTM(64, 128, seed=5)
        # Weights so large that the states wander about instead of coming to rest.
        self.layer.load_parameters(12 * self.layer.parameters)
        self.chunk = np.random.default_rng(5).normal(size=(40, 8, 64)).astype(np.float32)
        self.stream = self.layer.stream(8)
        self.taken: list[bytes] = []

    def push(self) -> bool:
        """Push once; tell whether the stream was free."""
        try:
            y = self.stream.push(self.chunk)
        except RuntimeError as error:
            if not str(error).startswith("stream in use by another thread; "):
                raise
            return False
        self.taken.append(y[-1].tobytes())
        return True

    def is_right(self) -> bool:
        """Tell whether the pushes taken, in some order, are those of one thread."""
        replay = self.layer.stream(8)
        expected = Counter(replay.push(self.chunk)[-1].tobytes() for _ in self.taken)
        h, c = self.stream.state
        return Counter(self.taken) == expected and bits(h, c) == bits(*replay.state)


def run(seconds: float, count: int) -> tuple[Counter[str], list[str]]:
    """Stress; return the calls of each kind, and what was wrong."""
    changing = LSTM(9, 31, 2, seed=3)
    vectors = [changing.parameters.copy(), (0.5 * changing.parameters).astype(np.float32)]
    with fastlstm.num_threads(1):
        shared = [
            Shared(LSTM(9, 67, seed=1), 40, 23),
            Shared(LSTM(70, 129, 2, seed=1), 30, 1),
            Shared(BiLSTM(20, 45, 2, seed=1), 40, 5),
            Shared(BiLSTM(5, 33, dtype=np.float64, proj_size=20, seed=1), 20, 9),
            Shared(LSTM(6, 40, layer_norm=True, cell_clip=2.0, seed=1), 20, 9),
            Shared(LSTM(3, 8, seed=1), 20, 1),
            Shared(changing, 25, 4, vectors),
        ]
    stream = OneStream()
    made: list[Counter[str]] = [Counter() for _ in range(count + 1)]
    wrong: list[str] = []
    end = time.monotonic() + seconds
    barrier = threading.Barrier(count + 1)

    def use(index: int) -> None:
        chance = random.Random(index)
        while time.monotonic() < end:
            if chance.random() < 0.1:
                made[index]["push taken" if stream.push() else "push refused"] += 1
                continue
            what = chance.choice(shared)
            kind = chance.choice(what.kinds)
            if kind() not in what.expected[kind.__name__]:
                wrong.append(f"{kind.__name__} of {what.layer}")
            made[index][kind.__name__] += 1

    def change(index: int) -> None:
        chance = random.Random(index)
        while time.monotonic() < end:
            changing.load_parameters(chance.choice(vectors))
            fastlstm.set_num_threads(chance.randint(1, 4))
            made[index]["change"] += 1
            time.sleep(0.0005)

    def guarded(work: Callable[[int], None], index: int) -> None:
        barrier.wait()
        try:
            work(index)
        except BaseException as error:
            wrong.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=guarded, args=(use, i)) for i in range(count)]
    threads.append(threading.Thread(target=guarded, args=(change, count)))
    before, interval = fastlstm.get_num_threads(), sys.getswitchinterval()
    sys.setswitchinterval(1e-4)  # more often than usual, for more orders of events
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    fastlstm.set_num_threads(before)
    if not stream.is_right():
        wrong.append("pushes of all threads into one stream")
    return sum(made, Counter()), wrong


def main() -> int:
    """Stress, print the figures; 1 if an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    made, wrong = run(options.seconds, options.threads)
    for line in wrong[:20]:
        print(line)
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(made.items()))
    print(f"{options.threads} threads, {options.seconds:g} s: {kinds}")
    print(f"{made.total() - made['change']} calls, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
