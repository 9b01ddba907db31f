"""Make ``haste_*.npz`` beside this file with haste's LSTM with layer normalisation and zoneout.

    pip download --no-deps --no-binary :all: haste_pytorch==0.5.0rc0
    python tests/golden/variants/generate_haste.py haste_pytorch-0.5.0rc0.tar.gz [FOLDER]

haste (https://github.com/lmnt-com/haste, Apache 2.0) has its kernels in CUDA, and beside them the
same layer in plain PyTorch for tensors on a CPU. Only that is run: the compiled module that its
files import is an empty one here. Everything is computed in float64, the gradients of the loss
``sum(dy * y) + sum(dh_n * h_n) + sum(dc_n * c_n)`` by autograd.

haste has the gates in the order i, g, f, o, one bias, no zoneout of the cell state, and a zoneout
mask that is 1 where the NEW hidden state is taken. The files have our order, names and meaning;
the bias is divided between ``bias_ih`` and ``bias_hh``.
"""

from __future__ import annotations

import importlib
import sys
import tarfile
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent
Arrays = dict[str, NDArray[Any]]

# What a file holds besides layer normalisation.
CASES = ("plain", "zoneout_rate", "zoneout_mask")
RATE = 0.3


def import_haste(sdist: Path, folder: Path) -> Any:
    """Unpack haste's sources to `folder` as a package, and import its layer_norm_lstm."""
    with tarfile.open(sdist) as file:
        file.extractall(folder, filter="data")
    (sources,) = folder.glob("*/frameworks/pytorch")
    package = ModuleType("haste_pytorch")
    package.__path__ = [str(sources)]  # without its __init__, which wants a generated file
    sys.modules["haste_pytorch"] = package
    sys.modules["haste_pytorch_lib"] = ModuleType("haste_pytorch_lib")
    return importlib.import_module("haste_pytorch.layer_norm_lstm")


def ours(array: NDArray[Any]) -> NDArray[Any]:
    """Rows of i, g, f, o to rows of i, f, g, o."""
    i, g, f, o = np.split(array, 4)
    return np.concatenate([i, f, g, o])


def make(haste: Any, case: str) -> Arrays:
    """All arrays of one case, as they are stored."""
    import torch

    T, B, I, H = 7, 3, 5, 4
    rng = np.random.default_rng([7, CASES.index(case)])
    torch.manual_seed(CASES.index(case))
    torch.set_num_threads(1)
    layer = haste.LayerNormLSTM(I, H, zoneout=0.0 if case == "plain" else RATE).double()
    layer.train(case == "zoneout_mask")
    for name, tensor in layer.named_parameters():
        low = 0.5 if name.startswith("gamma") else -0.9
        drawn = rng.uniform(low, low + 1.8, tuple(tensor.shape))
        tensor.data = torch.from_numpy(drawn)

    inputs = {
        "x": rng.normal(size=(T, B, I)),
        "h_0": rng.uniform(-0.9, 0.9, (1, B, H)),
        "c_0": rng.normal(scale=1.5, size=(1, B, H)),
    }
    x, h_0, c_0 = leaves = [torch.from_numpy(array).requires_grad_() for array in inputs.values()]
    masks: Arrays = {}
    draw_mask = layer._get_zoneout_mask

    def note_mask(given: Any) -> Any:
        mask = draw_mask(given)
        if case == "zoneout_mask":
            masks["zoneout_h"] = 1 - mask.numpy()[np.newaxis]
        return mask

    layer._get_zoneout_mask = note_mask
    outputs = layer(x, (h_0, c_0))
    outputs = {"y": outputs[0], "h_n": outputs[1][0], "c_n": outputs[1][1]}
    given = {f"d{name}": rng.normal(size=tuple(value.shape)) for name, value in outputs.items()}
    own = dict(layer.named_parameters())
    found = torch.autograd.grad(
        list(outputs.values()),
        [*leaves, *own.values()],
        [torch.from_numpy(array) for array in given.values()],
    )
    gradients = [tensor.numpy() for tensor in found]

    def named(values: dict[str, NDArray[Any]], share: float) -> Arrays:
        """Our names; share of the bias goes to bias_ih, the rest to bias_hh (1: all to both)."""
        bias = ours(values["bias"])
        first = share * bias
        return {
            "weight_ih_l0": ours(values["kernel"].T),
            "weight_hh_l0": ours(values["recurrent_kernel"].T),
            "bias_ih_l0": first,
            "bias_hh_l0": bias if share == 1 else bias - first,
            "scale_ih_l0": ours(values["gamma"][0]),
            "scale_hh_l0": ours(values["gamma"][1]),
            "scale_c_l0": values["gamma_h"],
            "shift_c_l0": values["beta_h"],
        }

    parameters = named({name: tensor.detach().numpy() for name, tensor in own.items()}, 0.3)
    dparameters = named(dict(zip(own, gradients[3:], strict=True)), 1)
    return {
        "torch_version": np.array(torch.__version__.split("+")[0]),
        **inputs,
        **masks,
        **{f"parameter.{name}": array for name, array in parameters.items()},
        **{name: tensor.detach().numpy() for name, tensor in outputs.items()},
        **given,
        **dict(zip(("dx", "dh_0", "dc_0"), gradients[:3], strict=True)),
        **{f"dparameter.{name}": array for name, array in dparameters.items()},
    }


def main(sdist: Path, folder: Path) -> None:
    """Write every case to `folder`."""
    with tempfile.TemporaryDirectory() as unpacked:
        haste = import_haste(sdist, Path(unpacked))
        for case in CASES:
            path = folder / f"haste_{case}.npz"
            arrays: dict[str, Any] = dict(make(haste, case))
            np.savez_compressed(path, **arrays)
            print(f"{path.name}  {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else FOLDER)
