"""How soon a call ends after Ctrl-C: milliseconds, median and worst of 20.

    PYTHONPATH=tests python tests/tools/interrupt_latency.py

For each kind of call that gives way, on one thread and on two, with the default instruction set.
"""

from __future__ import annotations

import signal

import numpy as np

import fastlstm
from support.interrupts import CALLS, interrupted, prepared


def main() -> None:
    # Python's own, even where a shell has a job in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("milliseconds from Ctrl-C to the end of a call, median and worst of 20")
    for count in (1, 2):
        fastlstm.set_num_threads(count)
        for name in CALLS:
            layer, x = prepared(name, np.float32)
            times = [interrupted(lambda: layer(x)) or 0 for _ in range(20)]  # noqa: B023
            print(
                f"{name:12} {count} threads {np.median(times) * 1e3:6.0f} {max(times) * 1e3:6.0f}"
            )


if __name__ == "__main__":
    main()
