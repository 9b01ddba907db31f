"""Packed weights of a module, for calls without gradients: kept between calls, and never stale.

The kernels read weights in an order of their own, and packing them takes longer than a step. A
module's parameters may change at any time, though, in ways that PyTorch counts nowhere: ``.data``
and NumPy write past the version counter, fused optimisers leave it as it was, and parameters in
shared memory are written by other processes. ``docs/explanation/pytorch-weights.md`` has a table.
So no counter is asked: packed weights are good while the parameters hold the very bytes that were
packed, which is compared at each call, unless the module is frozen.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from fastlstm import _core
from fastlstm._arguments import RealArray
from fastlstm._parameters import parameter_count, parameter_shapes
from fastlstm._spec import Spec
from fastlstm.torch._memory import PLAIN, TENSORS, joined
from fastlstm.torch._options import PRECISIONS, parameters_of, sources_of
from fastlstm.torch._threads import follow_threads


class _Packed(NamedTuple):
    """Packed weights, and what the parameters were that they were made of; never changed."""

    model: _core.Model
    spec: Spec
    epoch: object  # that of `PackedWeights` when packing began
    dtype: torch.dtype
    shapes: Sequence[tuple[int, ...]]  # of the parameters
    contents: RealArray | None  # of all of them, end to end
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
        packed, epoch, dtype = self._packed, self._epoch, parameters[0].dtype
        if packed is None or packed.spec is not spec or packed.dtype is not dtype:
            packed = None
        shapes = packed.shapes if packed else [shape for _, shape in parameter_shapes(spec)]
        kept = packed and packed.contents
        contents = _read(parameters, shapes, dtype, kept, spec)
        if contents is None:
            return None
        if packed is not None and contents is packed.contents:
            return packed.model
        model = _core.Model(spec, contents, None)
        if self.frozen:  # what need not be compared needs no copy, and unfrozen, is packed anew
            self._packed = _Packed(model, spec, epoch, dtype, shapes, None, sources)
        else:
            self._packed = _Packed(model, spec, epoch, dtype, shapes, contents, ())
        return model


def _read(
    parameters: Sequence[Tensor],
    shapes: Sequence[tuple[int, ...]],
    dtype: torch.dtype,
    kept: RealArray | None,
    spec: Spec,
) -> RealArray | None:
    """Return the numbers of parameters end to end, ``kept`` if it holds the very same bytes.

    None where they are none for the kernels.
    """
    if (
        TENSORS is not None
        and kept is not None
        and TENSORS.join(parameters, shapes, kept, kept.size, kept.dtype) is kept
    ):
        return kept
    if dtype not in PRECISIONS:
        return None
    for parameter, shape in zip(parameters, shapes, strict=True):
        if (
            type(parameter) not in PLAIN
            or not parameter.is_cpu
            or parameter.layout is not torch.strided
            or parameter.dtype is not dtype
            or parameter.shape != shape
        ):
            return None
    return joined(parameters, shapes, kept, parameter_count(spec), dtype)


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
