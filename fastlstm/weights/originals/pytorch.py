"""PyTorch runs an LSTM of its own files, or of files with its names, as it reads them itself."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.weights.contents import Found
from fastlstm.weights.formats import format_of
from fastlstm.weights.pytorch.module import TORCH_HAS

#: What runs it.
PACKAGE = "torch"

#: Of arrays that PyTorch can take, in either byte order.
_FLOATS = [np.dtype(f"{order}f{size}") for order in "<>" for size in (2, 4, 8)]


def run(
    path: Path, found: Found, x: NDArray[Any], h_0: NDArray[Any], c_0: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Run one LSTM of a file in ``torch.nn.LSTM`` or ``torch.nn.LSTMCell``.

    Parameters
    ----------
    path : Path
        A trusted file that PyTorch can load, or one of NumPy or safetensors with PyTorch's names.
        Its contents count, as for `fastlstm.weights.read`, and only then its suffix.
    found : Found
        Which of its LSTMs; its name and options count, not its arrays.
    x : ndarray (T, B, I)
    h_0, c_0 : ndarray (L*D, B, P), (L*D, B, H)

    Returns
    -------
    y : ndarray (T, B, D*P)
    h_n, c_n : ndarray (L*D, B, P), (L*D, B, H)

    Raises
    ------
    ImportError
        If PyTorch, or ``safetensors`` for such a file, is not installed.
    NotImplementedError
        If PyTorch has not the LSTM's options, or doesn't read its weights from the file by itself.
        The message says which.
    """
    import torch

    if found.quantized is not None or found.widened:
        raise NotImplementedError("PyTorch makes no floats of digits")
    if lacking := [name for name in found.options if name not in TORCH_HAS]:
        raise NotImplementedError(f"PyTorch has no {', '.join(lacking)}")
    parameters = _parameters(torch, path)
    D = found.num_directions
    y, states = torch.from_numpy(x), []
    with torch.inference_mode():
        at = 0
        for part in found.parts or (found,):
            rows = slice(at, at + D * part.options["num_layers"])
            at = rows.stop
            state = torch.from_numpy(h_0[rows]), torch.from_numpy(c_0[rows])
            prefix = f"{part.name}." if part.name else ""
            make = _cell if part.kind == "PyTorch LSTMCell" else _layer
            y, state = make(torch, part, parameters, prefix, y.dtype)(y, state)
            states.append(state)
    h_n, c_n = (torch.cat([state[i] for state in states]).numpy() for i in (0, 1))
    return y.numpy(), h_n, c_n


def _parameters(torch: Any, path: Path) -> dict[str, Any]:
    """Return all tensors of a file by their dotted names."""
    name = format_of(path).name
    if name == "safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    if name == "npz":
        with np.load(path) as arrays:
            floats = {k: a for k, a in arrays.items() if a.dtype in _FLOATS}
        # PyTorch has but one byte order, that of the machine.
        return {k: torch.from_numpy(a.astype(a.dtype.newbyteorder("="))) for k, a in floats.items()}
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    if zipped:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
        if not any(name.endswith("/data.pkl") for name in members):
            raise NotImplementedError("PyTorch does not read a zip of several files")
        if any(name.endswith("/constants.pkl") for name in members):
            return dict(torch.jit.load(path, map_location="cpu").state_dict())
    return dict(_flat(torch, "", torch.load(path, map_location="cpu", weights_only=True)))


def _flat(torch: Any, name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, torch.Tensor):
        yield name, value.detach()
    elif isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in items:
            yield from _flat(torch, f"{name}.{key}" if name else str(key), child)


def _layer(torch: Any, found: Found, parameters: dict[str, Any], prefix: str, dtype: Any) -> Any:
    options = {k: v for k, v in found.options.items() if k not in ("batch_first", "dropout")}
    module = torch.nn.LSTM(**options, bidirectional=found.bidirectional).to(dtype)
    _load(module, parameters, prefix)
    return module


def _cell(torch: Any, found: Found, parameters: dict[str, Any], prefix: str, dtype: Any) -> Any:
    options = {k: v for k, v in found.options.items() if k != "num_layers"}
    module = torch.nn.LSTMCell(**options).to(dtype)
    _load(module, parameters, prefix)

    def run_steps(x: Any, state: Any) -> Any:
        h, c = state[0][0], state[1][0]
        y = []
        for x_t in x:
            h, c = module(x_t, (h, c))
            y.append(h)
        return torch.stack(y), (h[None], c[None])

    return run_steps


def _load(module: Any, parameters: dict[str, Any], prefix: str) -> None:
    if missing := [name for name in module.state_dict() if prefix + name not in parameters]:
        raise NotImplementedError(f"PyTorch finds {missing[0]} in parts, as another model has it")
    # By copying, which also widens halves; strict, so that each parameter comes from the file.
    module.load_state_dict({name: parameters[prefix + name] for name in module.state_dict()})
