"""Packed weights of a module, for calls without gradients: kept between calls, and never stale.

The kernels read weights in an order of their own, and packing them takes longer than a step. A
module's parameters may change at any time, though, in ways that PyTorch counts nowhere: ``.data``
and NumPy write past the version counter, fused optimisers leave it as it was, and parameters in
shared memory are written by other processes. ``docs/pytorch-weights.md`` has a table. So no counter
is asked: packed weights are good while the parameters hold the very bytes that were packed, which
is compared at each call, unless the module is frozen.
"""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastlstm import _core
from fastlstm._parameters import parameter_shapes
from fastlstm._spec import Spec
from fastlstm.torch._options import parameters_of, sources_of
from fastlstm.torch._threads import follow_threads

#: Tensors whose numbers are in memory at their address; of a derived class they may be elsewhere.
_PLAIN = (torch.nn.Parameter, Tensor)


class _Seen(NamedTuple):
    """Parameters when they were last compared, and their memory."""

    parameters: tuple[tuple[Tensor, int, int], ...]  # each with its address and bytes
    memory: tuple[Any, ...]  # buffers, good while the parameters are there


class _Packed(NamedTuple):
    """Packed weights, and what the parameters were that they were made of; never changed."""

    model: _core.Model
    spec: Spec
    epoch: object  # that of `PackedWeights` when packing began
    dtype: torch.dtype
    contents: NDArray[Any]  # of all parameters, end to end
    seen: _Seen | None  # None where nothing was compared yet
    sources: Sequence[Tensor]  # of a frozen module, as `sources_of` gives them


class PackedWeights:
    """The packed weights that a module holds, if any. Copies and pickles of it are empty.

    Any number of threads may call :meth:`model` at once.
    """

    __slots__ = ("_epoch", "_packed", "frozen")

    def __init__(self, frozen: bool = False) -> None:
        #: Whether packed weights are good until :meth:`drop`, whatever their sources hold.
        self.frozen = frozen
        self._packed: _Packed | None = None
        self._epoch = object()

    def __reduce__(self) -> tuple[type[PackedWeights], tuple[bool]]:
        return PackedWeights, (self.frozen,)

    def drop(self) -> None:
        """Forget them, those too that another thread is packing now."""
        self._epoch = object()
        self._packed = None

    def frozen_model(self, sources: Sequence[Tensor]) -> _core.Model | None:
        """Return the packed weights if they need not be compared, else None.

        They must be of these very tensors: ``torch.func.functional_call`` puts others in their
        place.
        """
        packed = self._packed
        if (
            self.frozen
            and packed is not None
            and packed.epoch is self._epoch
            and len(packed.sources) == len(sources)
            and all(map(operator.is_, packed.sources, sources))
        ):
            return packed.model
        return None

    def model(
        self, spec: Spec, parameters: Sequence[Tensor], sources: Sequence[Tensor] = ()
    ) -> _core.Model | None:
        """Return parameters as they are now, packed; None where they are none for the kernels.

        Parameters
        ----------
        spec : Spec
            Its dtype does not count.
        parameters : sequence of Tensor
            In the order of :func:`fastlstm._parameters.parameter_shapes`. They are for the kernels
            if they have its shapes, are all of float32 or of float64, and in this machine's memory.
        sources : sequence of Tensor
            What :meth:`frozen_model` will be asked with.
        """
        packed = self._packed
        if packed is not None and packed.spec is spec:
            seen = packed.seen
            if seen is None or not _are_there(seen, parameters):
                seen = _look_at(packed.dtype, parameters)
            if seen is not None and _core.same_bytes(seen.memory, packed.contents):
                if seen is not packed.seen:
                    self._packed = packed._replace(seen=seen)
                return packed.model
        epoch = self._epoch
        packed = _pack(spec, parameters, epoch)
        if packed is None:
            return None
        if self.frozen:  # what need not be compared needs no copy, and unfrozen, is packed anew
            packed = packed._replace(contents=np.empty(0), sources=sources)
        self._packed = packed
        return packed.model


def _pack(spec: Spec, parameters: Sequence[Tensor], epoch: object) -> _Packed | None:
    shapes = [shape for _, shape in parameter_shapes(spec)]
    dtype = parameters[0].dtype
    if dtype not in (torch.float32, torch.float64):
        return None
    for parameter, shape in zip(parameters, shapes, strict=True):
        if (
            type(parameter) not in _PLAIN
            or not parameter.is_cpu
            or parameter.layout is not torch.strided
            or parameter.dtype is not dtype
            or parameter.shape != shape
        ):
            return None
    vector = torch.cat([parameter.detach().reshape(-1) for parameter in parameters]).numpy()
    return _Packed(_core.Model(spec, vector, None), spec, epoch, dtype, vector, None, ())


def _are_there(seen: _Seen, parameters: Sequence[Tensor]) -> bool:
    """Whether these are the parameters that were seen, and in the memory where they were."""
    for parameter, (before, address, nbytes) in zip(parameters, seen.parameters, strict=True):
        if (
            parameter is not before
            or parameter.data_ptr() != address
            or parameter.nbytes != nbytes
            or not parameter.is_contiguous()
        ):
            return False
    return True


def _look_at(dtype: torch.dtype, parameters: Sequence[Tensor]) -> _Seen | None:
    """Return where parameters are; None if one has no memory of plain numbers of the dtype.

    They are read at their address: ``Tensor.numpy`` would keep a storage from being resized ever
    after, and FSDP resizes those of parameters around each call.
    """
    places = []
    for parameter in parameters:
        if (
            type(parameter) not in _PLAIN
            or not parameter.is_cpu
            or parameter.dtype is not dtype
            or parameter.layout is not torch.strided
            or not parameter.is_contiguous()
        ):
            return None
        address = parameter.data_ptr()
        if not address:  # a storage without memory
            return None
        places.append((parameter, address, parameter.nbytes))
    memory = tuple((ctypes.c_char * nbytes).from_address(at) for _, at, nbytes in places)
    return _Seen(tuple(places), memory)


class HoldsPackedWeights(torch.nn.Module):
    """A module that holds packed weights, and lets its parameters be frozen."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._packed_weights = PackedWeights()

    def _packed_model(self, spec: Spec, names: Sequence[str]) -> _core.Model | None:
        """Return the parameters of these names as they are now, packed, as `PackedWeights.model`.

        A call of it uses as many threads as PyTorch.
        """
        follow_threads()
        packed = self._packed_weights
        if not packed.frozen:
            return packed.model(spec, parameters_of(self, names))
        sources = sources_of(self, names)
        model = packed.frozen_model(sources)
        if model is not None:
            return model
        return packed.model(spec, parameters_of(self, names), sources)

    def freeze(self) -> Self:
        """Promise that the parameters stay as they are, so that calls need not look at them.

        Calls without gradients compare all parameters with those that were packed. It takes next to
        nothing beside a sequence, and as long as several steps beside a single one of a large
        layer. A frozen module compares no numbers. ``load_state_dict``, ``to`` and other tensors in
        the parameters' place (``torch.func.functional_call``) pack anew, and ``train()`` ends the
        promise; no other change is noticed before :meth:`unfreeze`. With gradients parameters are
        compared at each call, frozen or not.

        Returns
        -------
        Module
            This one.

        Raises
        ------
        RuntimeError
            If the module is in training mode.
        """
        if self.training:
            raise RuntimeError("freeze: the module is in training mode; call eval() before")
        self._packed_weights.drop()
        self._packed_weights.frozen = True
        return self

    def unfreeze(self) -> Self:
        """Compare parameters at each call again, as at first.

        Returns
        -------
        Module
            This one.
        """
        self._packed_weights.frozen = False
        return self

    def train(self, mode: bool = True) -> Self:
        """As :meth:`torch.nn.Module.train`; training mode ends what :meth:`freeze` began."""
        if mode:
            self.unfreeze()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        module: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._packed_weights.drop()
        return module

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._packed_weights.drop()
