"""PyTorch's modules as layers of this package and back, and files that PyTorch loads."""

from __future__ import annotations

import io
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm._extras import import_for
from fastlstm._layer import LSTMBase
from fastlstm.lstm import LSTM, BiLSTM
from fastlstm.weights import native
from fastlstm.weights.contents import Arrays, Trained
from fastlstm.weights.names import find_layers

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["from_torch", "to_torch", "write"]

#: Options that ``torch.nn.LSTM`` has too, or says in another way.
TORCH_HAS = {
    "input_size",
    "hidden_size",
    "num_layers",
    "bias",
    "batch_first",
    "proj_size",
    "dropout",
    "dtype",
}


def from_torch(module: torch.nn.Module, name: str | None = None) -> LSTM | BiLSTM:
    """Make a layer of a module of PyTorch.

    Parameters
    ----------
    module : torch.nn.Module
        A ``torch.nn.LSTM`` or ``torch.nn.LSTMCell``, TorchScript of one, or a module that has one
        inside.
    name : str, optional
        Of the one inside, as ``named_modules`` has it, such as "encoder.rnn"; needed if there are
        several.

    Returns
    -------
    LSTM or BiLSTM
        With copies of the parameters as they are now, and ``batch_first`` and ``dropout`` of the
        module. float16 and bfloat16 become float32, which is exact. Of a cell a layer of one step
        after the other.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    TypeError
        If it is no module.
    ValueError
        If there is no LSTM in it, none of that name, or several and no name; or a parameter has no
        numbers, being on PyTorch's device "meta".

    Examples
    --------
    >>> import torch  # doctest: +SKIP
    >>> lstm = from_torch(torch.nn.LSTM(3, 5, bidirectional=True))  # doctest: +SKIP
    """
    torch = _import("from_torch")
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module: got {type(module).__name__}, expected a torch.nn.Module")
    inside = {path: each for path, each in module.named_modules() if _parameter_names(torch, each)}
    if name is None:
        if not inside:
            raise ValueError(f"module: a {type(module).__name__} without an LSTM in it")
        if len(inside) > 1:
            listed = ", ".join(path or "the module itself" for path in inside)
            raise ValueError(f"module: holds {len(inside)} LSTMs, choose one by name: {listed}")
        (chosen,) = inside.values()
    elif name in inside:
        chosen = inside[name]
    else:
        listed = f"there are {', '.join(inside)}" if inside else "there is none at all"
        raise ValueError(f"name: the module has no LSTM {name!r} inside; {listed}")
    return _layer(torch, chosen)


def to_torch(layer: LSTMBase) -> torch.nn.LSTM:
    """Make a ``torch.nn.LSTM`` with the parameters of a layer.

    Parameters
    ----------
    layer : LSTM or BiLSTM

    Returns
    -------
    torch.nn.LSTM
        On the CPU, in evaluation mode: until its ``train()`` is called it drops nothing, as a call
        of a layer. With one layer ``dropout`` is left out: there is no output between layers.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    TypeError
        If it is no layer.
    ValueError
        Naming the options of the layer that PyTorch does not have.
    """
    if not isinstance(layer, LSTMBase):
        raise TypeError(f"layer: got {type(layer).__name__}, expected an LSTM or BiLSTM")
    _check_options(layer, "made a torch.nn.LSTM")
    torch = _import("to_torch")
    module = torch.nn.LSTM(
        layer.input_size,
        layer.hidden_size,
        layer.num_layers,
        bias=layer.bias,
        batch_first=layer.batch_first,
        dropout=layer.rates.dropout if layer.num_layers > 1 else 0.0,
        bidirectional=layer.num_directions == 2,
        proj_size=layer.proj_size,
        dtype=getattr(torch, layer.dtype.name),
        device="meta",  # else it would draw parameters from PyTorch's generator
    ).to_empty(device="cpu")
    module.load_state_dict(_tensors(torch, dict(layer.state_dict())))
    evaluated: nn.LSTM = module.eval()
    return evaluated


def write(trained: Trained, path: Path) -> None:
    """Write a layer's ``state_dict`` with ``torch.save``; equal layers make equal files.

    ``torch.nn.LSTM(...).load_state_dict(torch.load(path))`` takes it, where there is no head or
    state. What a state_dict does not say, such as ``batch_first``, stands in its ``_metadata``,
    where PyTorch keeps versions of modules, for this package alone.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    ValueError
        Naming the options of the layer that PyTorch does not have.
    """
    _check_options(trained.layer, "saved for PyTorch (but as .npz or .safetensors)")
    torch = _import("writing PyTorch's files")
    tensors = _tensors(torch, native.arrays_of(trained))
    tensors._metadata = OrderedDict(  # type: ignore[attr-defined]  # an attribute of PyTorch's
        {"": {"version": 1}, native.KEY: {"options": native.text_of(trained.layer)}}
    )
    # To a path, the names inside the file would have that of the file.
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    path.write_bytes(buffer.getvalue())


def _import(what: str) -> Any:
    return import_for(what, "torch", title="PyTorch")


def _parameter_names(torch: Any, module: Any) -> list[str]:
    """Return the names of an LSTM's parameters, of any other module none."""
    if isinstance(module, torch.nn.LSTM):
        return list(module._flat_weights_names)
    if isinstance(module, torch.nn.LSTMCell):
        return ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if module.bias else [])]
    if isinstance(module, torch.jit.ScriptModule) and module.original_name in ("LSTM", "LSTMCell"):
        names = [name for name, _ in module.named_parameters(recurse=False)]
        # Anyone may call a class so; PyTorch's have these parameters.
        return names if "weight_hh_l0" in names or "weight_hh" in names else []
    return []


def _layer(torch: Any, module: Any) -> LSTM | BiLSTM:
    arrays = {}
    for name in _parameter_names(torch, module):
        # By getattr: parametrizations such as weight_norm compute them.
        tensor = getattr(module, name).detach()
        if tensor.is_meta:
            raise ValueError(f"module: {name} is on the device 'meta', where it has no numbers")
        tensor = tensor.cpu()
        half = tensor.dtype in (torch.float16, torch.bfloat16)
        arrays[name] = (tensor.float() if half else tensor).numpy()
    layers, refused, others = find_layers(arrays, None)
    if not layers:
        reasons = [each.reason for each in refused] + [each.what for each in others]
        raise ValueError(f"module: {'; '.join(reasons)}")
    (found,) = layers
    options = {**found.options, "batch_first": bool(getattr(module, "batch_first", False))}
    options["dropout"] = float(getattr(module, "dropout", 0.0))
    return replace(found, options=options).build()


def _check_options(layer: LSTMBase, what: str) -> None:
    """Raise ValueError if the layer computes what PyTorch's can't."""
    lacking = [
        f"{name}={value!r}" for name, value in layer._spec.chosen.items() if name not in TORCH_HAS
    ]
    if layer.bits is not None:
        lacking.append(f"bits={layer.bits}")
    if lacking:
        raise ValueError(
            f"{', '.join(lacking)}: PyTorch's LSTM has no such option, so can't be {what}"
        )


def _tensors(torch: Any, arrays: Arrays) -> OrderedDict[str, Any]:
    """Return tensors with memory of their own, as torch.save would else write what they view."""
    return OrderedDict((name, torch.tensor(np.array(array))) for name, array in arrays.items())
