"""Make the golden data beside this file with `torch.nn.LSTM`.

    python tests/golden/generate_golden.py [FOLDER]

One ``.npz`` file per case, read by `load` in this module. PyTorch computes in float64, twice per
case: once on the float64 arrays that are stored (``y``, ``h_n``, ``c_n``), and once on the same
arrays rounded to float32 (``y_cast``, ``h_n_cast``, ``c_n_cast``). The second is what a float32
implementation should approach when it is fed the rounded arrays; PyTorch's own float32 results are
not stored because they depend on the machine.

Initial states are neither zero nor equal, no two weights are equal, and the sizes are no multiple
of any vector.

For the smaller cases the folder ``gradients`` beside the files holds one of the same name with the
gradients of the loss ``sum(dy * y) + sum(dh_n * h_n) + sum(dc_n * c_n)``, by PyTorch's autograd in
float64; its inputs and parameters are those of the case's first file. It is read by
`load_gradients`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """One configuration: T time steps, B sequences, I inputs, H units, L layers, D directions."""

    T: int
    B: int
    I: int
    H: int
    L: int
    D: int
    bias: bool

    @property
    def name(self) -> str:
        """File name without suffix."""
        bias = "bias" if self.bias else "nobias"
        return f"T{self.T}_B{self.B}_I{self.I}_H{self.H}_L{self.L}_D{self.D}_{bias}"


CASES = (
    Case(T=1, B=1, I=1, H=1, L=1, D=1, bias=True),
    Case(T=11, B=7, I=1, H=1, L=2, D=2, bias=False),
    Case(T=11, B=3, I=3, H=5, L=1, D=1, bias=True),
    Case(T=11, B=1, I=3, H=5, L=2, D=2, bias=False),
    Case(T=2, B=7, I=3, H=5, L=3, D=2, bias=True),
    Case(T=1, B=3, I=7, H=13, L=1, D=2, bias=True),
    Case(T=11, B=3, I=7, H=9, L=3, D=1, bias=False),
    Case(T=11, B=3, I=17, H=33, L=1, D=1, bias=True),
    Case(T=2, B=1, I=5, H=17, L=1, D=2, bias=False),
)

# Those of which a file of gradients is small.
GRADIENT_CASES = tuple(case for case in CASES if case.H < 10)


def load(path: Path) -> tuple[Case, Arrays, Arrays]:
    """Read a golden file.

    Returns
    -------
    case : Case
    arrays : dict
        ``x`` (T, B, I), ``h_0`` and ``c_0`` (L*D, B, H), ``y`` (T, B, D*H), ``h_n`` and ``c_n``
        (L*D, B, H), the last three also with ``_cast``, and ``torch_version``.
    parameters : dict
        PyTorch's names and shapes.
    """
    with np.load(path, allow_pickle=False) as file:
        stored = {key: file[key] for key in file.files}
    T, B, I, H, L, D, bias = (int(number) for number in stored.pop("case"))
    parameters = {
        key.removeprefix("parameter."): stored.pop(key)
        for key in list(stored)
        if key.startswith("parameter.")
    }
    return Case(T, B, I, H, L, D, bool(bias)), stored, parameters


def load_gradients(path: Path) -> tuple[Arrays, Arrays]:
    """Read a golden file of gradients.

    Returns
    -------
    arrays : dict
        ``dy`` (T, B, D*H), ``dh_n`` and ``dc_n`` (L*D, B, H) go in; ``dx`` (T, B, I), ``dh_0`` and
        ``dc_0`` (L*D, B, H) come out; ``torch_version``.
    dparameters : dict
        The gradient by each parameter, with PyTorch's names and shapes.
    """
    with np.load(path, allow_pickle=False) as file:
        stored = {key: file[key] for key in file.files}
    dparameters = {
        key.removeprefix("dparameter."): stored.pop(key)
        for key in list(stored)
        if key.startswith("dparameter.")
    }
    return stored, dparameters


def _numbers(case: Case) -> list[int]:
    """The case as it is stored, and the seed of its random numbers."""
    return [case.T, case.B, case.I, case.H, case.L, case.D, int(case.bias)]


def _draw(case: Case) -> tuple[Any, Arrays, Arrays]:
    """PyTorch's module in float64, the inputs ``x``, ``h_0``, ``c_0`` and the parameters."""
    import torch

    # Seeded by the case itself, so that adding a case does not change the others.
    rng = np.random.default_rng(_numbers(case))
    torch.set_num_threads(1)
    module = torch.nn.LSTM(
        case.I,
        case.H,
        case.L,
        bias=case.bias,
        bidirectional=case.D == 2,
        dtype=torch.float64,
    )
    parameters = {
        name: rng.uniform(-0.8, 0.8, tuple(tensor.shape))
        for name, tensor in module.named_parameters()
    }
    state_shape = (case.L * case.D, case.B, case.H)
    inputs = {
        "x": rng.normal(size=(case.T, case.B, case.I)),
        "h_0": rng.uniform(-0.9, 0.9, state_shape),
        "c_0": rng.normal(scale=1.5, size=state_shape),
    }
    return module, inputs, parameters


def make(case: Case) -> Arrays:
    """All arrays of one case, as they are stored."""
    import torch

    module, inputs, parameters = _draw(case)

    def run(round_to: type[np.floating[Any]]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        def tensor(array: NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(array.astype(round_to).astype(np.float64))

        module.load_state_dict({name: tensor(array) for name, array in parameters.items()})
        with torch.no_grad():
            y, (h_n, c_n) = module(
                tensor(inputs["x"]), (tensor(inputs["h_0"]), tensor(inputs["c_0"]))
            )
        return y.numpy(), h_n.numpy(), c_n.numpy()

    results: Arrays = dict(zip(("y", "h_n", "c_n"), run(np.float64), strict=True))
    results |= dict(zip(("y_cast", "h_n_cast", "c_n_cast"), run(np.float32), strict=True))
    return {
        "case": np.array(_numbers(case)),
        "torch_version": np.array(torch.__version__.split("+")[0]),
        **inputs,
        **{f"parameter.{name}": array for name, array in parameters.items()},
        **results,
    }


def make_gradients(case: Case) -> Arrays:
    """All gradients of one case, as they are stored."""
    import torch

    module, inputs, parameters = _draw(case)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in parameters.items()})
    x, h_0, c_0 = (torch.from_numpy(inputs[key]).requires_grad_() for key in ("x", "h_0", "c_0"))
    y, (h_n, c_n) = module(x, (h_0, c_0))

    rng = np.random.default_rng([*_numbers(case), 1])  # 1: not the numbers of the inputs again
    outputs = {"dy": y, "dh_n": h_n, "dc_n": c_n}
    given = {key: rng.normal(size=tuple(output.shape)) for key, output in outputs.items()}
    by = {"dx": x, "dh_0": h_0, "dc_0": c_0}
    by |= {f"dparameter.{name}": tensor for name, tensor in module.named_parameters()}
    found = torch.autograd.grad(
        list(outputs.values()),
        list(by.values()),
        [torch.from_numpy(array) for array in given.values()],
    )
    return {
        "torch_version": np.array(torch.__version__.split("+")[0]),
        **given,
        **{key: gradient.numpy() for key, gradient in zip(by, found, strict=True)},
    }


def main(folder: Path) -> None:
    """Write every case to `folder`, and the gradients to its subfolder."""
    files = [(folder / f"{case.name}.npz", make(case)) for case in CASES]
    files += [
        (folder / "gradients" / f"{case.name}.npz", make_gradients(case)) for case in GRADIENT_CASES
    ]
    (folder / "gradients").mkdir(exist_ok=True)
    total = 0
    for path, arrays in files:
        stored: dict[str, Any] = dict(arrays)
        np.savez_compressed(path, **stored)
        total += path.stat().st_size
        print(f"{path.relative_to(folder)}  {path.stat().st_size} bytes")
    print(f"{len(files)} files, {total} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
