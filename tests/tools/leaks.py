"""LeakSanitizer over the compiled core: nothing that it allocated is lost, whatever Python does.

    python tests/tools/leaks.py        # needs a build with FASTLSTM_SANITIZE=1, and GCC's libraries

Python and NumPy lose some memory at exit by design, so only what was allocated below the core
counts. A second run loses a layer's model on purpose, and has to be caught.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROUNDS = 200


def library(name: str) -> str:
    """The path of one of GCC's libraries."""
    command = ["gcc", f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def losses(*arguments: str) -> tuple[str, list[str]]:
    """Run this script under the sanitizer; return what it printed, and the leaks of the core."""
    environment = {
        **os.environ,
        "LD_PRELOAD": f"{library('libasan.so')} {library('libstdc++.so')}",
        "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1:malloc_context_size=40",
        "LSAN_OPTIONS": "exitcode=0",
        "PYTHONMALLOC": "malloc",  # so that objects of Python are seen one by one
    }
    command = [sys.executable, __file__, *arguments]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    leaks = re.split(r"\n(?=(?:Direct|Indirect) leak of)", ran.stderr)[1:]
    return ran.stdout, [leak for leak in leaks if "/_core." in leak or " in fl_" in leak]


def work() -> None:
    """Everything that allocates in C, and the ways out of it by an error."""
    import numpy as np
    from endurance import Loading

    import fastlstm
    from fastlstm import LSTM, BiLSTM, _core

    with tempfile.TemporaryDirectory() as folder:
        loading = Loading(Path(folder))
        for _ in range(ROUNDS):
            loading.load()
    x = np.ones((9, 5, 3), np.float32)
    for isa in _core.available_isas():
        variants = [
            LSTM(3, 8, 2, isa=isa, proj_size=5, peepholes=True, clip=3.0),
            LSTM(3, 8, 2, isa=isa, layer_norm=True, zoneout_c=0.2),
            BiLSTM(3, 8, 3, isa=isa, dropout=0.3, recurrent_dropout=0.2),
        ]
        for layer in variants:
            for lengths in (None, [9, 7, 3, 1, 0]):
                y, _, tape = layer.record(x, lengths=lengths, rng=0)
                tape.backward(y, keep=True)
                layer(x, lengths=lengths)
            layer.load_parameters(layer.parameters * 0.5)
    for count in (1, 2, 4):
        with fastlstm.num_threads(count):
            LSTM(40, 150, 2)(np.ones((60, 8, 40), np.float32))
    wrong: list[Callable[[], object]] = [
        lambda: LSTM(3, 8)._weights.model.forward(x, None, None, x, x, x),
        lambda: LSTM(3, 8).stream(2**55),
        lambda: LSTM(3, 8).stream(2).push(x),
        lambda: LSTM(3, 8, isa="none"),
        lambda: LSTM(2**31, 2**31),
    ]
    for make in wrong:
        try:
            make()
        except (ValueError, TypeError, MemoryError, OverflowError):
            continue
        raise SystemExit("an error was expected")
    print("worked")


def lose_a_model() -> None:
    """Keep a reference to a model that nothing leads to."""
    from fastlstm import LSTM

    python = ctypes.pythonapi
    for function in (python.Py_IncRef, python.PyObject_GC_UnTrack):
        function.argtypes, function.restype = [ctypes.py_object], None
    for _ in range(5):  # of the last, a register may still hold the address
        model = LSTM(3, 4)._weights.model
        python.Py_IncRef(model)
        python.PyObject_GC_UnTrack(model)
        del model


def main() -> int:
    """Run both, print the figures; 1 if anything of the core was lost, or losing was not seen."""
    if sys.argv[1:] == ["work"]:
        work()
        return 0
    if sys.argv[1:] == ["lose"]:
        lose_a_model()
        return 0
    printed, leaks = losses("work")
    _, seen = losses("lose")
    print(*leaks, sep="\n")
    print(f"{ROUNDS} rounds, {len(leaks)} leaks of the core; with one on purpose {len(seen)}")
    return 0 if printed == "worked\n" and not leaks and seen else 1


if __name__ == "__main__":
    sys.exit(main())
