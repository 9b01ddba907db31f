"""The kernels under autograd and the transforms: the one function that modules call, `lstm`.

A pass that may be differentiated leaves a tape, a tensor like the others, and its gradients come of
the kernels, too: `_Lstm`. They know no further derivative. Whoever asks for one (a gradient of a
gradient, or forward-mode differentiation) has it of :mod:`fastlstm.torch._plain`, which computes
the same in PyTorch's own operations: `_Gradients`.

Eager calls go to the kernels at once. Compilers and exporters, modes and subclasses of tensors see
the operations of :mod:`fastlstm.torch._ops`, whose autograd is these functions, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch._C._functorch import unwrap_if_dead
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad

from fastlstm.torch import _ops, _plain
from fastlstm.torch._batches import gradients_batch, recorded_batch
from fastlstm.torch._calls import check_parameters
from fastlstm.torch._program import program_of
from fastlstm.variants import NO_MASKS, Masks

_Tensors: TypeAlias = tuple[Tensor, ...]
_Options: TypeAlias = tuple[Tensor | None, ...]

# Not annotated by PyTorch, or for other uses than these.
_vjp: Any = torch.func.vjp


class _Lstm(torch.autograd.Function):
    """A recorded pass: y, h_n and c_n. Not for transforms, which take longer than a small pass.

    ``recorded`` is the pass where it ran already, and ``others`` are batch_sizes and the masks,
    which have no gradients and mostly are None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        spec: str,
        recorded: _Tensors | None,
        others: _Options,
        x: Tensor,
        h_0: Tensor,
        c_0: Tensor,
        *own: Tensor,
    ) -> _Tensors:
        if recorded is None:
            recorded = _ops.record(x, h_0, c_0, own, *others, spec)
        y, h_n, c_n, tape = recorded
        ctx.spec = spec
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(tape, x, h_0, c_0, *others, *own)
        return y, h_n, c_n

    @staticmethod
    def backward(ctx: Any, *seeds: Tensor | None) -> _Options:
        return None, None, None, *_pull(ctx, ctx.needs_input_grad[3:], seeds)


class _Transformed(torch.autograd.Function):
    """The same for transforms and operations; the tape, which has no gradient, is a result, too."""

    @staticmethod
    def forward(spec: str, *tensors: Any) -> _Tensors:
        return _ops.record(*tensors[:3], _ops.join(tensors[8:]), *tensors[3:8], spec)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: _Tensors) -> None:
        spec, *tensors = inputs
        ctx.spec = spec
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[3])
        ctx.save_for_backward(output[3], *tensors)
        ctx.save_for_forward(output[3], *tensors)

    @staticmethod
    def backward(ctx: Any, *seeds: Tensor | None) -> _Options:
        needed = ctx.needs_input_grad
        dx, dh_0, dc_0, *own = _pull(ctx, (*needed[1:4], *needed[9:]), seeds[:3])
        return (None, dx, dh_0, dc_0, None, None, None, None, None, *own)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> _Options:
        _, *tensors = ctx.saved_tensors
        found = _pushed(_as_function(ctx.spec, tensors), _primals(tensors), _primals(tangents[1:]))
        return (*found, None)

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[Any], *arguments: Any) -> tuple[_Tensors, Any]:
        return recorded_batch(_Transformed.apply, info.batch_size, in_dims, arguments)


class _Operation(torch.autograd.function._SingleLevelFunction):
    """The same for operations, which each level of the transforms calls by itself."""

    forward = staticmethod(_Transformed.forward)
    setup_context = staticmethod(_Transformed.setup_context)
    backward = staticmethod(_Transformed.backward)
    jvp = staticmethod(_Transformed.jvp)


class _Gradients(torch.autograd.Function):
    """The gradients that are wanted of x, h_0, c_0 and of the parameters in one vector."""

    @staticmethod
    def forward(
        spec: str,
        wanted: tuple[bool, ...],
        tape: Tensor,
        dy: Tensor | None,
        dh_n: Tensor | None,
        dc_n: Tensor | None,
        *tensors: Any,
    ) -> _Tensors:
        found = _run_backward(spec, wanted, tape, (dy, dh_n, dc_n), tensors)
        return tuple(g for g, flag in zip(found, wanted, strict=True) if flag and g is not None)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: _Tensors) -> None:
        ctx.spec, ctx.wanted, _, *tensors = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *seeds: Tensor | None) -> _Options:
        function, places, values = _as_gradients(ctx.spec, ctx.wanted, ctx.saved_tensors)
        outputs, pull = _vjp(function, *values)
        given = (
            torch.zeros_like(o) if s is None else s for o, s in zip(outputs, seeds, strict=True)
        )
        found: list[Tensor | None] = [None] * (3 + len(ctx.saved_tensors))
        for place, gradient in zip(places, pull(tuple(given)), strict=True):
            found[3 + place] = gradient
        return tuple(found)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> _Options:
        function, places, values = _as_gradients(ctx.spec, ctx.wanted, ctx.saved_tensors)
        return _pushed(function, values, [tangents[3 + place] for place in places])

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[Any], *arguments: Any) -> tuple[_Tensors, Any]:
        return gradients_batch(_Gradients.apply, info.batch_size, in_dims, arguments)


def _pull(ctx: Any, needed: Sequence[bool], seeds: Sequence[Tensor | None]) -> Sequence[Any]:
    """Return the gradients that are needed of x, h_0, c_0 and each parameter, None for others."""
    dy, dh_n, dc_n = seeds
    if dy is None and dh_n is None and dc_n is None:
        return (None,) * len(needed)
    tape, *tensors = ctx.saved_tensors
    wanted = (*needed[:3], True in needed[3:])
    dx, dh_0, dc_0, own = _find_gradients(ctx.spec, wanted, tape, seeds, tensors)
    if len(tensors) == 9:
        own = (own,)
    elif own is None:
        own = (None,) * (len(needed) - 3)
    found = (dx, dh_0, dc_0, *own)
    if False not in needed:
        return found
    return [gradient if flag else None for gradient, flag in zip(found, needed, strict=True)]


def _run_backward(
    spec: str, wanted: Sequence[bool], tape: Tensor, seeds: Sequence[Any], tensors: Sequence[Any]
) -> Sequence[Tensor | None]:
    """Run the kernels for gradients of x, h_0, c_0 and the parameters.

    What is not wanted is None, or as an operation has it, empty.
    """
    joined = _ops.join(tensors[8:])
    return _ops.backward(*tensors[:3], joined, *tensors[3:8], tape, *seeds, list(wanted), spec)


def _find_gradients(
    spec: str, wanted: tuple[bool, ...], tape: Tensor, seeds: Sequence[Any], tensors: Sequence[Any]
) -> list[Any]:
    """Do the same under autograd and the transforms; several parameters have several gradients."""
    own = tensors[8] if len(tensors) == 9 else tuple(tensors[8:])
    if not _is_differentiated((*seeds, *tensors)):
        return _ops.backward(*tensors[:3], own, *tensors[3:8], tape, *seeds, wanted, spec)
    apply: Any = _Gradients.apply
    found = iter(apply(spec, wanted, tape, *seeds, *tensors))
    dx, dh_0, dc_0, joined = (next(found) if flag else None for flag in wanted)
    if joined is None or len(tensors) == 9:
        return [dx, dh_0, dc_0, joined]
    return [dx, dh_0, dc_0, _ops.split(joined, own)]


def _is_differentiated(tensors: Sequence[Tensor | None]) -> bool:
    """Tell whether a result may be asked for derivatives, or is of a transform."""
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return True
    return _requires_grad(tensors)


def _requires_grad(tensors: Sequence[Tensor | None]) -> bool:
    """Tell whether autograd is to record what is made of tensors."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


# In PyTorch's own operations


def _primals(tensors: Sequence[Any]) -> list[Any]:
    """Return those of a call's tensors that have gradients: x, h_0, c_0 and the parameters."""
    return [*tensors[:3], *tensors[8:]]


def _as_function(spec: str, tensors: Sequence[Any]) -> Callable[..., _Tensors]:
    """Return the pass as a differentiable function of `_primals` alone."""

    def run(x: Tensor, h_0: Tensor, c_0: Tensor, *parameters: Tensor) -> _Tensors:
        own: Sequence[Tensor] = parameters
        if len(own) == 1:  # all in one vector, as the operations have them
            own = program_of(spec).split(own[0])
        masks = Masks(*tensors[4:8])
        return _plain.lstm(x, h_0, c_0, own, batch_sizes=tensors[3], masks=masks, spec=spec)

    return run


def _as_gradients(
    spec: str, wanted: Sequence[bool], saved: Sequence[Any]
) -> tuple[Callable[..., _Tensors], list[int], list[Tensor]]:
    """Return the gradients as a differentiable function, and places and values of its arguments.

    ``saved`` are dy, dh_n, dc_n and the tensors of the call.
    """
    run = _as_function(spec, saved[3:])
    seeded = [place for place in range(3) if saved[place] is not None]
    places = [*seeded, 3, 4, 5, *range(11, len(saved))]

    def gradients(*arguments: Tensor) -> _Tensors:
        seeds, primals = arguments[: len(seeded)], arguments[len(seeded) :]
        outputs, pull = _vjp(run, *primals)
        given = list(map(torch.zeros_like, outputs))
        for place, seed in zip(seeded, seeds, strict=True):
            given[place] = seed
        dx, dh_0, dc_0, *own = pull(tuple(given))
        found = (dx, dh_0, dc_0, torch.cat([gradient.flatten() for gradient in own]))
        return tuple(g for g, flag in zip(found, wanted, strict=True) if flag)

    return gradients, places, [saved[place] for place in places]


def _pushed(
    function: Callable[..., _Tensors], primals: Sequence[Tensor], tangents: Sequence[Tensor | None]
) -> _Tensors:
    """Return the derivative of a function in the direction of tangents, None for zeros.

    As the gradient with respect to u of the gradient that is linear in u (Townsend 2017), since
    forward-mode differentiation does not nest. Autograd's functions run with it switched off, with
    which a derivative of this one would silently be zero.
    """

    def pulled(*seeds: Tensor) -> _Tensors:
        found: _Tensors = _vjp(function, *values)[1](seeds)
        return found

    with forward_ad._set_fwd_grad_enabled(True):
        values = [forward_ad.unpack_dual(primal).primal for primal in primals]
        seeds = map(torch.zeros_like, function(*values))
        pairs = zip(values, tangents, strict=True)
        given = (torch.zeros_like(value) if t is None else t for value, t in pairs)
        found: _Tensors = _vjp(pulled, *seeds)[1](tuple(given))
    return found


_NO_OTHERS: _Options = (None,) * 5


def _unwrapped(tensor: Any) -> Any:
    """Return what is inside of a tensor that a transform left behind."""
    return unwrap_if_dead(tensor) if type(tensor) is Tensor else tensor


_apply: Any = _Transformed.apply
_apply_as_operation: Any = _Operation.apply  # type: ignore[attr-defined]  # of the C type below

# The same where no transform is active: without binding arguments by the signature, which takes
# longer than a small pass does.
_apply_eagerly: Any = super(torch.autograd.Function, _Lstm).apply


def lstm_in_place(
    x: Tensor, h_0: Tensor, c_0: Tensor, parameters: Sequence[Tensor], *, spec: str
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Do what `lstm` does, for a call that asks for gradients and has nothing unusual.

    It runs on the memory of the tensors, and takes a third less time where a pass is small. None,
    having done nothing, where something is unusual or wrong.
    """
    parameters = tuple(parameters)
    wanted = _requires_grad(parameters) or _requires_grad((x, h_0, c_0))
    if not wanted or forward_ad._current_level >= 0:
        return None
    recorded = _ops.record_in_place(x, h_0, c_0, parameters, spec)
    if recorded is None:
        return None
    found: tuple[Tensor, Tensor, Tensor] = _apply_eagerly(
        spec, recorded, _NO_OTHERS, x, h_0, c_0, *parameters
    )
    return found


def lstm(
    x: Tensor,
    h_0: Tensor,
    c_0: Tensor,
    parameters: Sequence[Tensor],
    *,
    batch_sizes: Tensor | None = None,
    masks: Masks = NO_MASKS,
    spec: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a stack of L layers in D directions.

    Parameters
    ----------
    x : Tensor (T, B, I), or with ``batch_sizes`` (N, I)
        float32 or float64 on a CPU, as all the others. Of packed sequences the rows of the first
        step, then those of the second, as :class:`torch.nn.utils.rnn.PackedSequence` has them.
    h_0, c_0 : Tensor (L*D, B, P), (L*D, B, H)
        Of packed sequences in their order, the longest first.
    parameters : sequence of Tensor
        In the order of :func:`fastlstm._parameters.parameter_shapes`.
    batch_sizes : Tensor (T,) of int64, optional
        How many sequences have a step t: they do not rise, and add up to N.
    masks : Masks of Tensor
        What training drew; of packed sequences the axes T and B are one, N. Without gradients.
    spec : str
        As :func:`fastlstm.torch._spec.to_text` wrote it.

    Returns
    -------
    y : Tensor (T, B, D*P), or (N, D*P)
    h_n, c_n : Tensor (L*D, B, P), (L*D, B, H)

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what it was and what was expected.
    """
    tensors = (x, h_0, c_0, batch_sizes, *masks, *parameters)
    if torch.compiler.is_compiling():
        joined = torch.cat([parameter.reshape(-1) for parameter in parameters])
        found: _Tensors = torch.ops.fastlstm.forward(*tensors[:3], joined, *tensors[3:8], spec)
        y, h_n, c_n = found
        return y, h_n, c_n
    if batch_sizes is None and masks is NO_MASKS:
        recorded = lstm_in_place(x, h_0, c_0, parameters, spec=spec)
        if recorded is not None:
            return recorded
    if [parameter.shape for parameter in parameters] != program_of(spec).shapes:
        check_parameters(parameters, spec)
    if not _is_differentiated((*parameters, x, h_0, c_0)):
        return _ops.forward(*tensors[:3], tuple(parameters), *tensors[3:8], spec)
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        y, h_n, c_n, _ = _apply(spec, *tensors)
    else:
        others = [_unwrapped(tensor) for tensor in (batch_sizes, *masks)]
        given = [_unwrapped(tensor) for tensor in (x, h_0, c_0, *parameters)]
        y, h_n, c_n = _apply_eagerly(spec, None, others, *given)
    return y, h_n, c_n


# The operations under autograd: what compilers and exporters see, which don't trace the functions


def _record(*arguments: Any) -> _Tensors:
    *call, spec = arguments
    if not _is_differentiated(call):
        return _ops.record(*arguments)
    x, h_0, c_0, parameters, *rest = call
    with enable_single_level_autograd_function():  # of the transform that called this, if any
        recorded: _Tensors = _apply_as_operation(spec, x, h_0, c_0, *rest, parameters)
    return recorded


def _forward(*arguments: Any) -> _Tensors:
    if _is_differentiated(arguments[:-1]):
        return _record(*arguments)[:3]
    return _ops.forward(*arguments)


def _backward(*arguments: Any) -> _Tensors:
    x, h_0, c_0, parameters, *rest, tape, dy, dh_n, dc_n, wanted, spec = arguments
    tensors = (x, h_0, c_0, *rest, parameters)
    found = _find_gradients(spec, tuple(wanted), tape, (dy, dh_n, dc_n), tensors)
    return tuple(x.new_empty(0) if gradient is None else gradient for gradient in found)


def _record_batched(info: Any, in_dims: Sequence[Any], *arguments: Any) -> tuple[_Tensors, Any]:
    def apply(spec: str, x: Tensor, h_0: Tensor, c_0: Tensor, *rest: Any) -> _Tensors:
        found: _Tensors = torch.ops.fastlstm.record(x, h_0, c_0, rest[-1], *rest[:-1], spec)
        return found

    places = (9, 0, 1, 2, 4, 5, 6, 7, 8, 3)
    given, dims = ([values[place] for place in places] for values in (arguments, in_dims))
    return recorded_batch(apply, info.batch_size, dims, given)


def _forward_batched(info: Any, in_dims: Sequence[Any], *arguments: Any) -> tuple[_Tensors, Any]:
    results, out = _record_batched(info, in_dims, *arguments)
    return results[:3], out[:3]


def _backward_batched(info: Any, in_dims: Sequence[Any], *arguments: Any) -> tuple[_Tensors, Any]:
    wanted = arguments[13]

    def apply(spec: str, _: Any, *rest: Any) -> _Tensors:
        seeds, call, parameters = rest[:4], rest[4:-1], rest[-1]
        found = torch.ops.fastlstm.backward(*call[:3], parameters, *call[3:], *seeds, wanted, spec)
        return tuple(gradient for gradient, flag in zip(found, wanted, strict=True) if flag)

    places = (14, 13, 9, 10, 11, 12, 0, 1, 2, 4, 5, 6, 7, 8, 3)
    given, dims = ([values[place] for place in places] for values in (arguments, in_dims))
    results, out = gradients_batch(apply, info.batch_size, dims, given)
    found = iter(zip(results, out, strict=True))
    pairs = [next(found) if flag else (arguments[0].new_empty(0), None) for flag in wanted]
    return tuple(gradient for gradient, _ in pairs), tuple(axis for _, axis in pairs)


for _name, _function, _rule in (
    ("forward", _forward, _forward_batched),
    ("record", _record, _record_batched),
    ("backward", _backward, _backward_batched),
):
    _ops.LIBRARY.impl(_name, _function, "Autograd")
    torch.library.register_vmap(f"fastlstm::{_name}", _rule, lib=_ops.LIBRARY)
