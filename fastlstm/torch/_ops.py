"""The operations of PyTorch that run the kernels: ``torch.ops.fastlstm``.

=============  ====================================================================================
``forward``    y, h_n, c_n of a stack of L layers in D directions
``record``     the same, and a tape for ``backward``
``backward``   gradients of the input, the initial states and the parameters
=============  ====================================================================================

They take tensors, flags and one string alone, so that a compiled or exported program can hold them
and run in another process. What autograd makes of them is in :mod:`fastlstm.torch._autograd`, whose
one function is what to call. Shapes are those of :class:`fastlstm.torch._calls.Call`, and ``spec``
is what :func:`fastlstm.torch._spec.to_text` wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import _C, Tensor
from torch._C._autograd import _profiler_enabled
from torch._C._functorch import is_legacy_batchedtensor as is_batched

from fastlstm import _core
from fastlstm._arguments import RealArray, shown
from fastlstm.torch._calls import Call, check, check_gradients, refuse
from fastlstm.torch._memory import PLAIN, TENSORS, share, whole
from fastlstm.torch._program import Program, program_of
from fastlstm.torch._threads import follow_threads
from fastlstm.variants import Masks

_TENSORS = (
    "Tensor x, Tensor h_0, Tensor c_0, Tensor parameters, Tensor? batch_sizes, Tensor? recurrent, "
    "Tensor? between, Tensor? zoneout_h, Tensor? zoneout_c"
)
_SCHEMAS = {
    "forward": f"({_TENSORS}, str spec) -> (Tensor y, Tensor h_n, Tensor c_n)",
    "record": f"({_TENSORS}, str spec) -> (Tensor y, Tensor h_n, Tensor c_n, Tensor tape)",
    "backward": (
        f"({_TENSORS}, Tensor tape, Tensor? dy, Tensor? dh_n, Tensor? dc_n, bool[] wanted, "
        "str spec) -> (Tensor dx, Tensor dh_0, Tensor dc_0, Tensor dparameters)"
    ),
}

#: The library of the operations; they are there as long as it is.
LIBRARY = torch.library.Library("fastlstm", "DEF")


# On fake tensors


def _fake_forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    call, program = Call(*arguments[:-1]), program_of(arguments[-1])
    check(program, call)
    y = call.x.new_empty((*call.x.shape[:-1], program.width))
    return y, call.x.new_empty(call.h_0.shape), call.x.new_empty(call.c_0.shape)


def _fake_record(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    results = _fake_forward(*arguments)
    x, program = arguments[0], program_of(arguments[-1])
    return *results, x.new_empty((program.rows, *x.shape[:-1], program.record_size))


def _fake_backward(*arguments: Any) -> tuple[Tensor, ...]:
    *tensors, tape, dy, dh_n, dc_n, wanted, text = arguments
    call, program = Call(*tensors), program_of(text)
    check(program, call)
    check_gradients(program, call, tape, (dy, dh_n, dc_n), wanted)
    return tuple(
        call.x.new_empty(tensor.shape if flag else (0,))
        for tensor, flag in zip(call[:4], wanted, strict=True)
    )


# On a CPU


def _rows(tensor: Tensor) -> RealArray:
    """Return a tensor's numbers, the last axis contiguous."""
    if not tensor.is_contiguous() and tensor.stride(-1) != 1:
        tensor = tensor.contiguous()
    array: RealArray = tensor.numpy(force=True)  # of one that requires a gradient, too
    return array


def _starts_of(batch_sizes: Tensor, N: int, B: int) -> npt.NDArray[np.intp]:
    """Return the row at which each step begins, (T + 1,), the last their number."""
    sizes = batch_sizes.numpy(force=True)
    T = sizes.size
    # Looked at before they are added up, so that no sum is too large.
    if T > N or (T and (sizes[-1] < 1 or sizes[0] > B or (sizes[1:] > sizes[:-1]).any())):
        expected = f"at most {N} positive numbers that do not rise, the first at most {B}"
        refuse("batch_sizes", shown(sizes.tolist()), expected)
    starts = np.zeros(T + 1, np.intp)
    np.cumsum(sizes, out=starts[1:])
    if starts[-1] != N:
        refuse("batch_sizes", f"a sum of {starts[-1]}", f"{N}, the rows of x")
    return starts


class _Arrays(NamedTuple):
    """A call as the core takes it."""

    x: RealArray  # (T, B, I), or packed (1, N, I)
    h_0: RealArray
    c_0: RealArray
    starts: npt.NDArray[np.intp] | None
    masks: Masks | None


def _as_arrays(program: Program, call: Call) -> _Arrays:
    """Return a call as the core takes it, which checks the rest."""
    x, h_0, c_0, _, batch_sizes, *drawn = call
    rows, masks, starts = _rows(x), None, None
    if drawn[0] is not None or drawn[1] is not None or drawn[2] is not None or drawn[3] is not None:
        check(program, call)
        masks = Masks(*(None if mask is None else whole(mask) for mask in drawn))
    if batch_sizes is not None:
        check(program, call)
        starts = _starts_of(batch_sizes, x.shape[0], h_0.shape[1])
        rows = rows[np.newaxis]
        if masks is not None:
            steps = (None if mask is None else mask[:, np.newaxis] for mask in masks[1:])
            masks = Masks(masks.recurrent, *steps)
    return _Arrays(rows, whole(h_0), whole(c_0), starts, masks)


def _parts(parameters: Any) -> tuple[Tensor, ...]:
    return parameters if type(parameters) is tuple else (parameters,)


def _run(
    program: Program, call: Call, recorded: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    x, h_0, c_0, starts, masks = _as_arrays(program, call)
    # Arrays made into tensors take half the time of tensors made into arrays.
    outer, dtype = x.shape[:-1], program.spec.dtype
    y = np.empty((*outer, program.width), dtype)
    tape: RealArray | None = None
    h_n, c_n = np.empty(call.h_0.shape, dtype), np.empty(call.c_0.shape, dtype)
    if recorded or masks is not None:
        tape = np.empty((program.rows, *outer, program.record_size), dtype)
    records = None if tape is None else tape.reshape(-1)
    follow_threads()
    model = program.pack(program.read(call.parameters))
    model.forward(x, h_0, c_0, y, h_n, c_n, False, records, starts, masks)
    if starts is not None:
        y, tape = y[0], None if tape is None else tape[:, 0]
    given = torch.from_numpy
    return given(y), given(h_n), given(c_n), None if tape is None else given(tape)


def _contents(program: Program, parameters: tuple[Tensor, ...]) -> RealArray | None:
    """Return the numbers of parameters end to end: the kept ones, if they are the same.

    None where they are unusual, or of other shapes than the spec's.
    """
    kept = program.kept
    found: RealArray | None = TENSORS.join(
        parameters, program.shapes, kept and kept.contents, program.count, program.spec.dtype
    )
    return found


def _run_back_in_place(
    x: Tensor,
    h_0: Tensor,
    c_0: Tensor,
    parameters: tuple[Tensor, ...],
    tape: Tensor,
    dy: Tensor | None,
    dh_n: Tensor | None,
    dc_n: Tensor | None,
    wanted: Sequence[bool],
    text: str,
) -> list[Any] | None:
    """Run a backward pass on the memory of tensors; None where something is unusual or wrong."""
    program = program_of(text)
    contents, kept = _contents(program, parameters), program.kept
    if contents is None:
        return None
    follow_threads()
    model = program.pack(contents) if kept is None else kept.model
    found: list[Any] | None = TENSORS.backward(
        model, contents, x, h_0, c_0, tape, (dy, dh_n, dc_n), tuple(wanted)
    )
    if found is not None and wanted[3]:
        found[3] = share(found[3], program.shapes)
    return found


def run_model(
    model: _core.Model, spec: str, x: Tensor, h_0: Tensor, c_0: Tensor, batch_sizes: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Run parameters that are packed already, without gradients.

    Shapes and dtypes are those of `Call`, and are not checked again.
    """
    program, rows, starts = program_of(spec), _rows(x), None
    if batch_sizes is not None:
        starts = _starts_of(batch_sizes, x.shape[0], h_0.shape[1])
        rows = rows[np.newaxis]
    dtype = program.spec.dtype
    y = np.empty((*rows.shape[:-1], program.width), dtype)
    h_n, c_n = np.empty(h_0.shape, dtype), np.empty(c_0.shape, dtype)
    model.forward(rows, whole(h_0), whole(c_0), y, h_n, c_n, False, None, starts, None)
    given = torch.from_numpy
    return given(y if starts is None else y[0]), given(h_n), given(c_n)


def _run_back(
    program: Program,
    call: Call,
    tape: Tensor,
    seeds: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Any]:
    x, h_0, c_0, starts, masks = _as_arrays(program, call)
    parameters = program.read(call.parameters)
    records = tape.contiguous().numpy(force=True)
    if records.shape != (program.rows, *call.x.shape[:-1], program.record_size):
        raise ValueError("tape of another shape")
    arrays: list[Any] = [
        np.empty(array.shape, program.spec.dtype) if flag else None
        for array, flag in zip((x, h_0, c_0, parameters), wanted, strict=True)
    ]
    dx, dh_0, dc_0, dparameters = arrays
    dy = None if seeds[0] is None else _rows(seeds[0])
    if dy is not None and starts is not None:
        dy = dy[np.newaxis]
    dh_n, dc_n = (None if seed is None else whole(seed) for seed in seeds[1:])
    follow_threads()
    kept, B = program.kept, call.h_0.shape[1]
    model = program.pack(parameters) if kept is None else kept.model
    model.backward(
        parameters, x, h_0, c_0, records.reshape(-1), dy, dh_n, dc_n, dx, dh_0, dc_0, dparameters,
        accumulate=False, starts=starts, batch_size=B, masks=masks,
    )  # fmt: skip
    if dx is not None and starts is not None:
        dx = dx[0]
    given = torch.from_numpy
    found: list[Any] = [None if g is None else given(g) for g in (dx, dh_0, dc_0)]
    if dparameters is None:
        return [*found, None]
    is_one = len(_parts(call.parameters)) == 1
    return [*found, given(dparameters) if is_one else share(dparameters, program.shapes)]


def _run_or_explain(arguments: tuple[Any, ...], recorded: bool) -> Any:
    """Run a pass. The core's own checks cost nothing; what they refuse is named by `check`."""
    call, program = Call(*arguments[:-1]), program_of(arguments[-1])
    try:
        return _run(program, call, recorded)
    except Exception:
        check(program, call)
        raise


def _forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    y, h_n, c_n, _ = _run_or_explain(arguments, recorded=False)
    return y, h_n, c_n


def _record(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    results: tuple[Tensor, Tensor, Tensor, Tensor] = _run_or_explain(arguments, recorded=True)
    return results


def _backward(*arguments: Any) -> list[Any]:
    *tensors, tape, dy, dh_n, dc_n, wanted, text = arguments
    call, program = Call(*tensors), program_of(text)
    try:
        return _run_back(program, call, tape, (dy, dh_n, dc_n), wanted)
    except Exception:
        check(program, call)
        check_gradients(program, call, tape, (dy, dh_n, dc_n), wanted)
        raise


def _backward_in_full(*arguments: Any) -> tuple[Tensor, ...]:
    """The same as an operation has it, which can't return None."""
    found = _backward(*arguments)
    return tuple(arguments[0].new_empty(0) if gradient is None else gradient for gradient in found)


_IMPLEMENTATIONS = {
    "forward": (_forward, _fake_forward),
    "record": (_record, _fake_record),
    "backward": (_backward_in_full, _fake_backward),
}

for _name, _schema in _SCHEMAS.items():
    _real, _fake = _IMPLEMENTATIONS[_name]
    LIBRARY.define(_name + _schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(_name, _real, "CPU")
    torch.library.register_fake(f"fastlstm::{_name}", _fake, lib=LIBRARY)


# Calls from Python, below autograd

# Not annotated by PyTorch.
_nn: Any = _C._nn


def join(parameters: Sequence[Tensor]) -> Tensor:
    """Return parameters end to end; of an operation they are already."""
    if len(parameters) == 1:
        return parameters[0]
    vector: Tensor = _nn.flatten_dense_tensors(parameters)
    return vector


def split(vector: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return views of a vector of the parameters' shapes."""
    if not (_C._are_functorch_transforms_active() or is_batched(vector)):
        views: Sequence[Tensor] = _nn.unflatten_dense_tensors(vector, parameters)
        return views
    parts = vector.split_with_sizes([parameter.numel() for parameter in parameters])
    return [part.view(own.shape) for part, own in zip(parts, parameters, strict=True)]


def _is_quiet() -> bool:
    """Tell whether nobody looks on but the dispatcher."""
    return not (
        _C._len_torch_dispatch_stack()
        or _C._are_functorch_transforms_active()
        or _profiler_enabled()
    )


def _are_bare(tensors: Sequence[Tensor | None]) -> bool:
    """Tell whether the dispatcher would come to a kernel on a CPU."""
    for tensor in tensors:
        if tensor is not None and (
            type(tensor) not in PLAIN or not tensor.is_cpu or is_batched(tensor)
        ):
            return False
    return True


def _call(name: str, kernel: Any, seen: Sequence[Tensor | None], arguments: Any) -> Any:
    """Call an operation; its kernel where the dispatcher would come to it."""
    parameters = arguments[3]
    if _is_quiet() and _are_bare((*seen, *_parts(parameters))):
        return kernel(*arguments)
    if type(parameters) is tuple:
        arguments = (*arguments[:3], join(parameters), *arguments[4:])
    with _C._AutoDispatchBelowAutograd():
        return getattr(torch.ops.fastlstm, name)(*arguments)


def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Call ``torch.ops.fastlstm.forward``; the parameters may be a tuple."""
    results: tuple[Tensor, Tensor, Tensor]
    results = _call("forward", _forward, arguments[:3], arguments)
    return results


def record_in_place(
    x: Tensor, h_0: Tensor, c_0: Tensor, parameters: tuple[Tensor, ...], text: str
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Run what `record` does, without packed rows and masks, on the memory of the tensors.

    None, having done nothing, where something is unusual or wrong, or somebody looks on.
    """
    if TENSORS is None or not _is_quiet():
        return None
    program = program_of(text)
    contents = _contents(program, parameters)
    if contents is None:
        return None
    follow_threads()
    model = program.pack(contents)
    found: tuple[Tensor, Tensor, Tensor, Tensor] | None = TENSORS.forward(
        model, x, h_0, c_0, False, True
    )
    return found


def record(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Call ``torch.ops.fastlstm.record``; the parameters may be a tuple."""
    results: tuple[Tensor, Tensor, Tensor, Tensor]
    results = _call("record", _record, arguments[:3], arguments)
    return results


def backward(*arguments: Any) -> list[Any]:
    """Call ``torch.ops.fastlstm.backward``; what is not wanted is empty or None.

    The parameters may be a tuple: then their gradients are several, too.
    """
    x, h_0, c_0, parameters, starts, recurrent, between, zoneout_h, zoneout_c, *rest = arguments
    others = recurrent is None and between is None and zoneout_h is None and zoneout_c is None
    usual = type(parameters) is tuple and starts is None and others
    if usual and TENSORS is not None and _is_quiet():
        found = _run_back_in_place(x, h_0, c_0, parameters, *rest)
        if found is not None:
            return found
    results = _call("backward", _backward, (x, h_0, c_0, *rest[:4]), arguments)
    dx, dh_0, dc_0, own = results
    if type(parameters) is tuple and isinstance(own, Tensor):
        own = split(own, parameters) if rest[4][3] else None
    return [dx, dh_0, dc_0, own]
