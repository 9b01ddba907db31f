"""Time and shares of integrated gradients beside captum's, on the same weights in PyTorch.

``python -m fastlstm.bench.explanations``: one after the other in turns; the medians of the ratios.
Needs captum and PyTorch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastlstm
from fastlstm import LSTM, explain

#: Between calls: threads of the one that still spin would hold up the other.
_PAUSE = 0.01


def seconds_of(call: Callable[[], Any]) -> float:
    """Return what a call takes when it is warm."""
    time.sleep(_PAUSE)
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print a line for captum's points, and one for as many as are needed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--inputs", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=15)
    args = parser.parse_args()

    import torch
    from captum.attr import IntegratedGradients

    torch.set_num_threads(args.threads)
    fastlstm.set_num_threads(args.threads)
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(args.inputs, args.hidden, args.layers).requires_grad_(False)
    ours = LSTM(args.inputs, args.hidden, args.layers)
    ours.load_state_dict({name: array.numpy() for name, array in theirs.state_dict().items()})
    captum = IntegratedGradients(lambda x: theirs(x.swapaxes(0, 1))[0][-1, :, 0])
    for sequences in args.sequences:
        shape = args.steps, sequences, args.inputs
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        given = torch.from_numpy(np.ascontiguousarray(x.swapaxes(0, 1)))

        def expected(given: Any = given) -> Any:
            return captum.attribute(given, n_steps=args.points)

        ways: dict[str, dict[str, Any]] = {
            f"{args.points} points": {"points": args.points, "tolerance": 1e30},
            f"residual below {args.tolerance:g}": {"tolerance": args.tolerance},
        }
        for name, options in ways.items():

            def found(x: Any = x, options: Any = options) -> Any:
                return explain.integrated_gradients(ours, x, 0, **options)

            times = [(seconds_of(expected), seconds_of(found)) for _ in range(args.repetitions)]
            difference = np.abs(found().values - expected().numpy().swapaxes(0, 1)).max()
            captums, own = (statistics.median(column) for column in zip(*times, strict=True))
            ratio = statistics.median(theirs_ / ours_ for theirs_, ours_ in times)
            print(
                f"B={sequences} threads={args.threads}, {name}: captum {1e3 * captums:.1f} ms, "
                f"fastlstm {1e3 * own:.1f} ms with {found().points} points, {ratio:.1f} times as "
                f"fast; largest difference {difference:.0e}"
            )


if __name__ == "__main__":
    main()
