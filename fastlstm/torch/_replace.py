"""Swapping the LSTMs of a model for this package's in place, and back.

A module is swapped by giving it another class, and what that needs besides: it stays the same
object, with its parameters, hooks, attributes and places in the model, so whoever holds it (an
optimiser its parameters, another module it) goes on as before, and the model itself may be one.
Parametrisations and ``fully_shard`` of PyTorch do the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from fastlstm.quantization.layers import as_bits
from fastlstm.torch._cell import LSTMCell
from fastlstm.torch._context import COMPUTED_IN
from fastlstm.torch._module import LSTM
from fastlstm.torch._quantized import QuantizedLSTM, calibrate, quantized_layer

#: What holds, in a module that was swapped, the class that it had and the names of the attributes
#: that it got. It is a plain tuple, which pickles of modules may hold.
_MARK = "_swapped"


class _Plan(NamedTuple):
    """What a module is to become."""

    module: nn.Module
    cls: type[nn.Module]
    attributes: dict[str, Any]  # that it does not have yet


class Report(NamedTuple):
    """What :func:`replace` or :func:`restore` did; ``print`` shows it.

    Attributes
    ----------
    swapped : dict of str to str
        By the name of a module in the model, what it is now. The model itself is "". Of a module
        that has several names, the first.
    kept : dict of str to str
        Why the other LSTMs were not.
    """

    swapped: dict[str, str]
    kept: dict[str, str]

    def __str__(self) -> str:
        count = len(self.swapped) + len(self.kept)
        if not count:
            return "no LSTM found"
        rows = [f"swapped {len(self.swapped)} of {count}"]
        width = max(len(_shown(name)) for name in (*self.swapped, *self.kept))
        rows += [f"  {_shown(name):{width}}  {now}" for name, now in self.swapped.items()]
        rows += [f"  {_shown(name):{width}}  kept: {why}" for name, why in self.kept.items()]
        return "\n".join(rows)


def _shown(name: str) -> str:
    return name or "(the model)"


def replace(
    model: nn.Module,
    *,
    bits: int | None = None,
    data: Iterable[Any] | None = None,
    strict: bool = False,
) -> Report:
    """Make every ``torch.nn.LSTM`` and ``torch.nn.LSTMCell`` of a model run on these kernels.

    They become :class:`fastlstm.torch.LSTM` and :class:`fastlstm.torch.LSTMCell` in place: the same
    objects, and the same parameters in them, so an optimiser, tied weights, hooks, ``state_dict``
    and references from elsewhere go on as before. :func:`restore` undoes it.

    Left as they are, and named in the report, are modules of classes derived from PyTorch's, whose
    code would be passed over; those with a ``forward`` of their own; scripted ones; and those of
    dtypes and on devices that the kernels don't have.

    Parameters
    ----------
    model : torch.nn.Module
        Any, an LSTM itself too.
    bits : {8, 16, 24}, optional
        Make layers of these bits, as :func:`fastlstm.quantize` does: for a model in evaluation
        mode, of float32. They can't be trained, and keep to the parameters of now. Cells run in
        float32.
    data : iterable, optional
        With ``bits``: inputs like those to come, that each layer's are taken from. Each is run
        through the model: a tensor as its argument, a tuple as its arguments, and a mapping as its
        arguments by name.
    strict : bool, default False
        Whether to refuse what the kernels don't have, here and in calls, where PyTorch's own
        computation would do it.

    Returns
    -------
    Report
        Which modules were swapped, and which were not and why.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong; if the model is in training mode with ``bits``; if a module is
        left with ``strict``. The model is then as it was.

    Examples
    --------
    >>> import torch
    >>> import fastlstm.torch
    >>> model = torch.nn.Sequential(torch.nn.LSTM(8, 16, batch_first=True))
    >>> print(fastlstm.torch.replace(model))
    swapped 1 of 1
      0  LSTM(8, 16, batch_first=True)
    """
    _check_model(model)
    if data is not None and bits is None:
        raise ValueError("data: got some without bits, expected both")
    if bits is not None:
        bits = as_bits(bits)
    plans: dict[str, _Plan] = {}
    kept: dict[str, str] = {}
    for name, module in _lstms(model):
        if _is_done(module, bits):
            continue
        reason = _why_not(module)
        if reason is None:
            try:
                plans[name] = _plan(module, strict=strict)
            except (TypeError, ValueError) as error:  # of sizes that no layer may have
                reason = str(error)
        if reason is not None:
            kept[name] = reason
    if strict and kept:
        left = "; ".join(f"{_shown(name)}: {why}" for name, why in kept.items())
        raise ValueError(f"model: can't swap all its LSTMs, and strict=True: {left}")
    if bits is not None:
        _quantize(model, plans, bits, data)
    for plan in plans.values():
        _carry_out(plan)
    return Report({name: repr(plan.module) for name, plan in plans.items()}, kept)


def restore(model: nn.Module) -> Report:
    """Undo :func:`replace`: make the modules that it swapped what they were.

    Parameters
    ----------
    model : torch.nn.Module
        The one that was given to :func:`replace`, a part or a copy of it.

    Returns
    -------
    Report
        Which modules were swapped back.

    Raises
    ------
    TypeError
        If it is no module.
    """
    _check_model(model)
    swapped = {}
    for name, module in model.named_modules():
        mark = module.__dict__.get(_MARK)
        if mark is not None:
            cls, added = mark
            for attribute in (*added, _MARK):
                del module.__dict__[attribute]
            _set_class(module, cls)
            swapped[name] = repr(module)
    return Report(swapped, {})


def _check_model(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}, expected a torch.nn.Module")


def _lstms(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the LSTMs of a model, PyTorch's and this package's, each once."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            if getattr(module, "original_name", None) in ("LSTM", "LSTMCell"):
                yield name, module
        elif isinstance(module, nn.LSTM | nn.LSTMCell | LSTM | LSTMCell):
            yield name, module


def _class_of(module: nn.Module) -> type[nn.Module]:
    """Return the class of a module, that of a parametrised one before it was."""
    cls = type(module)
    return cls.__bases__[0] if parametrize.is_parametrized(module) else cls


def _set_class(module: nn.Module, cls: type[nn.Module]) -> None:
    """Give a module another class; the properties that compute its parameters go along."""
    if parametrize.is_parametrized(module):
        own = {
            name: value
            for name, value in vars(type(module)).items()
            if name not in ("__dict__", "__weakref__", "__doc__")
        }
        cls = type(f"Parametrized{cls.__name__}", (cls,), own)
    module.__class__ = cls


def _is_done(module: nn.Module, bits: int | None) -> bool:
    """Whether a module is what it would become."""
    if isinstance(module, QuantizedLSTM):
        return bits is None or module.bits == bits
    return isinstance(module, LSTMCell) or (isinstance(module, LSTM) and bits is None)


def _why_not(module: nn.Module) -> str | None:
    """Return why a module can't be swapped, or None."""
    if isinstance(module, torch.jit.ScriptModule):
        return "scripted; replace comes before torch.jit.script"
    cls = _class_of(module)
    if isinstance(module, QuantizedLSTM):
        return f"of {module.bits} bits; restore comes before other bits"
    if cls not in (nn.LSTM, nn.LSTMCell, LSTM):
        bases = [base for base in cls.__mro__ if base in (nn.LSTM, nn.LSTMCell, LSTM)]
        return f"{cls.__name__} is derived from {bases[0].__name__}, and may have code of its own"
    if "forward" in vars(module):
        return "its forward was replaced"
    tensors = [*module.parameters(), *module.buffers()]
    for tensor in tensors:
        if tensor.device.type not in ("cpu", "meta"):
            return f"on the device {tensor.device}"
        if tensor.dtype not in COMPUTED_IN:
            return f"of {tensor.dtype}"
        if type(tensor) not in (nn.Parameter, torch.Tensor):
            return f"its parameters are of the class {type(tensor).__name__}"
    return None


def _plan(module: nn.Module, *, strict: bool) -> _Plan:
    """Return what a module is to become, of float32 or float64."""
    if isinstance(module, LSTM):
        return _Plan(module, LSTM, {})
    template: nn.Module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what there is to say was said when it was made
        if isinstance(module, nn.LSTM):
            template = LSTM(
                module.input_size,
                module.hidden_size,
                module.num_layers,
                module.bias,
                module.batch_first,
                module.dropout,
                module.bidirectional,
                module.proj_size,
                device="meta",
                strict=strict,
            )
        else:
            assert isinstance(module, nn.LSTMCell)
            template = LSTMCell(
                module.input_size, module.hidden_size, module.bias, device="meta", strict=strict
            )
    own = vars(module)
    added = {name: value for name, value in vars(template).items() if name not in own}
    return _Plan(module, type(template), added)


def _quantize(
    model: nn.Module, plans: dict[str, _Plan], bits: int, data: Iterable[Any] | None
) -> None:
    """Plan layers of so many bits in place of others.

    Raises
    ------
    ValueError
        If one is in training mode, is not of float32, or was given no data.
    """
    layers = {name: plan for name, plan in plans.items() if plan.cls is LSTM}
    parameters: dict[str, list[torch.Tensor]] = {}
    for name, (module, _, _) in layers.items():
        if module.training:
            raise ValueError(
                f"bits: got {bits}, and {_shown(name)} is in training mode; call model.eval()"
            )
        names: Any = module._flat_weights_names
        parameters[name] = own = [getattr(module, parameter) for parameter in names]
        if any(parameter.dtype != torch.float32 for parameter in own):
            raise ValueError(
                f"bits: got {bits}, and {_shown(name)} is of {own[0].dtype}, expected torch.float32"
            )
    inputs = None
    if data is not None:
        inputs = calibrate(model, [plan.module for plan in layers.values()], data)
    for name, (module, _, attributes) in layers.items():
        if inputs is not None and not inputs[module]:
            raise ValueError(f"data: got none that reached {_shown(name)}")
        specs: Any = attributes.get("_specs") or module._specs
        given = None if inputs is None else inputs[module]
        layer = quantized_layer(specs[torch.float32], parameters[name], bits, given)
        plans[name] = _Plan(module, QuantizedLSTM, attributes | {"_layer": layer})


def _carry_out(plan: _Plan) -> None:
    """Make a module what it is to become."""
    module, cls, attributes = plan
    was, added = module.__dict__.get(_MARK, (_class_of(module), ()))
    module.__dict__.update(attributes)
    module.__dict__[_MARK] = (was, (*added, *attributes))
    _set_class(module, cls)
