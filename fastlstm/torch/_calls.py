"""What an operation is given, and what all of them check of it.

With real and with fake tensors, whose sizes may be symbols. Anyone can call operations with
anything, so whatever the core does not check is checked here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from fastlstm._parameters import parameter_shapes
from fastlstm.torch._program import Program, program_of


class Call(NamedTuple):
    """What an operation is given, apart from the spec.

    Attributes
    ----------
    x : Tensor (T, B, I), or with ``batch_sizes`` (N, I)
        Of the spec's dtype, as all the others; of any strides.
    h_0, c_0 : Tensor (L*D, B, P), (L*D, B, H)
    parameters : Tensor (n,), or tuple of Tensor
        All of them end to end, in the order of :func:`fastlstm._parameters.parameter_shapes`; in
        calls from Python one by one, too, whose shapes `check_parameters` has seen.
    batch_sizes : Tensor (T,) of int64, or None
        Of packed sequences, as :class:`torch.nn.utils.rnn.PackedSequence` has them: how many have
        a step t. They do not rise, and add up to N.
    recurrent, between, zoneout_h, zoneout_c : Tensor or None
        As in :class:`fastlstm.variants.Masks`; of packed sequences the axes T and B are one, N.
    """

    x: Tensor
    h_0: Tensor
    c_0: Tensor
    parameters: Any
    batch_sizes: Tensor | None = None
    recurrent: Tensor | None = None
    between: Tensor | None = None
    zoneout_h: Tensor | None = None
    zoneout_c: Tensor | None = None


def refuse(name: str, got: Any, expected: str) -> NoReturn:
    """Raise the error that an argument is not as expected."""
    raise ValueError(f"{name}: got {got}, expected {expected}")


def _check_tensor(name: str, tensor: Tensor, like: Tensor, dtype: torch.dtype) -> None:
    if tensor.layout is not torch.strided:
        refuse(name, f"layout {tensor.layout}", "torch.strided")
    if tensor.dtype is not dtype:
        raise TypeError(f"{name}: got {tensor.dtype}, expected {dtype}")
    if tensor.device != like.device:
        refuse(name, f"a tensor on {tensor.device}", f"one on {like.device}, where x is")


def _check_shape(name: str, tensor: Tensor, shape: Sequence[int]) -> None:
    """Check a shape, some of whose sizes may be symbols: those that can't be known are assumed."""
    if tensor.dim() != len(shape):
        refuse(name, f"shape {tuple(tensor.shape)}", f"{len(shape)} dimensions")

    def message() -> str:
        return f"{name}: got shape {tuple(tensor.shape)}, expected {tuple(shape)}"

    for got, wanted in zip(tensor.shape, shape, strict=True):
        torch._check_value(got == wanted, message)


def check_parameters(parameters: Sequence[Tensor], spec: str) -> None:
    """Check shapes of parameters one by one.

    Raises
    ------
    ValueError
        Naming the first that is wrong.
    """
    shapes = dict(parameter_shapes(program_of(spec).spec))
    if len(parameters) != len(shapes):
        refuse("parameters", len(parameters), f"{len(shapes)}: {', '.join(shapes)}")
    for parameter, (name, shape) in zip(parameters, shapes.items(), strict=True):
        if parameter.shape != shape:
            refuse("parameters", f"shape {tuple(parameter.shape)} of {name}", str(shape))


def check(program: Program, call: Call) -> None:
    """Check dtypes and shapes.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what it was and what was expected.
    """
    spec, x = program.spec, call.x
    for name, tensor in zip(Call._fields, call, strict=True):
        if tensor is not None and name != "batch_sizes":
            for part in tensor if type(tensor) is tuple else (tensor,):
                _check_tensor(name, part, x, program.dtype)
    packed = call.batch_sizes is not None
    if x.dim() != (2 if packed else 3):
        outer = "N" if packed else "T, B"
        refuse("x", f"shape {tuple(x.shape)}", f"({outer}, {spec.input_size})")
    if call.h_0.dim() != 3:
        refuse("h_0", f"shape {tuple(call.h_0.shape)}", "3 dimensions")
    outer_shape = x.shape[:-1]
    B = call.h_0.shape[1] if packed else x.shape[1]
    P, H = spec.output_size, spec.hidden_size
    _check_shape("x", x, (*outer_shape, spec.input_size))
    _check_shape("h_0", call.h_0, (program.rows, B, P))
    _check_shape("c_0", call.c_0, (program.rows, B, H))
    if type(call.parameters) is not tuple:
        _check_shape("parameters", call.parameters, (program.count,))
    if call.recurrent is not None:
        _check_shape("recurrent", call.recurrent, (program.rows, B, P))
    between = (spec.num_layers - 1, *outer_shape, program.width)
    if call.between is not None:
        _check_shape("between", call.between, between)
    for name, width, rate in (
        ("zoneout_h", P, spec.cell.zoneout_h),
        ("zoneout_c", H, spec.cell.zoneout_c),
    ):
        mask = getattr(call, name)
        if mask is not None:
            _check_shape(name, mask, (program.rows, *outer_shape, width))
            if rate == 0:
                refuse(name, "a mask", "None, since the spec's rate is 0")
    if call.batch_sizes is not None and (
        call.batch_sizes.dim() != 1 or call.batch_sizes.dtype is not torch.int64
    ):
        got = f"shape {tuple(call.batch_sizes.shape)} of {call.batch_sizes.dtype}"
        refuse("batch_sizes", got, "shape (T,) of torch.int64")


def check_gradients(
    program: Program, call: Call, tape: Tensor, seeds: Sequence[Tensor | None], wanted: Any
) -> None:
    """Check what a backward pass is given besides; raises as `check` does."""
    outer_shape = call.x.shape[:-1]
    shapes = {"dy": (*outer_shape, program.width), "dh_n": call.h_0.shape, "dc_n": call.c_0.shape}
    for (name, shape), seed in zip(shapes.items(), seeds, strict=True):
        if seed is not None:
            _check_tensor(name, seed, call.x, program.dtype)
            _check_shape(name, seed, shape)
    _check_tensor("tape", tape, call.x, program.dtype)
    _check_shape("tape", tape, (program.rows, *outer_shape, program.record_size))
    if len(wanted) != 4:
        refuse("wanted", f"{len(wanted)} flags", "4: of x, h_0, c_0 and the parameters")
