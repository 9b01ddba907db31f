"""The golden data with this machine's results, as plain numbers for ``c/test_golden.c``.

    PYTHONPATH=tests python tests/tools/raw_golden_files.py FOLDER

On any other processor the C program must come to the same bits. A file holds nine integers of 64
bits (T, B, I, H, L, D, bias, whether reals are doubles, number of parameters), then reals: the
parameters, x, h_0, c_0, dy, dh_n, dc_n, and then what has to come out: y, h_n, c_n, dx, dh_0, dc_0
and the gradients of the parameters.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from support.golden import golden
from support.layers import layer_class
from support.paths import GOLDEN


def write_raw_golden_files(folder: Path) -> list[Path]:
    """Write a file for each golden case and precision; return their paths."""
    paths = []
    for source in sorted(GOLDEN.glob("T*.npz")):
        case, arrays, parameters = golden.load(source)
        gradients = GOLDEN / "gradients" / source.name
        if gradients.exists():
            given, _ = golden.load_gradients(gradients)
        else:  # the golden results stand in for gradients that nobody made
            given = {"dy": arrays["y"], "dh_n": arrays["h_n"], "dc_n": arrays["c_n"]}
        for dtype in (np.float32, np.float64):
            layer = layer_class(case.D)(case.I, case.H, case.L, bias=case.bias, dtype=dtype)
            layer.load_state_dict(parameters)
            x, h_0, c_0 = (arrays[name].astype(dtype) for name in ("x", "h_0", "c_0"))
            dy, dh_n, dc_n = (given[name].astype(dtype) for name in ("dy", "dh_n", "dc_n"))
            y, (h_n, c_n), tape = layer.record(x, (h_0, c_0))
            grads = tape.backward(dy, (dh_n, dc_n))
            sizes = [case.T, case.B, case.I, case.H, case.L, case.D, case.bias]
            header = np.array([*sizes, dtype == np.float64, layer.parameters.size], "<i8")
            inputs = [layer.parameters, x, h_0, c_0, dy, dh_n, dc_n]
            expected = [y, h_n, c_n, grads.x, grads.h_0, grads.c_0, grads.params]
            paths.append(folder / f"{case.name}_{np.dtype(dtype).name}.raw")
            paths[-1].write_bytes(b"".join(a.tobytes() for a in [header, *inputs, *expected]))
    return paths


if __name__ == "__main__":
    print(*write_raw_golden_files(Path(sys.argv[1])), sep="\n")
