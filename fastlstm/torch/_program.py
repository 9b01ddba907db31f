"""What a spec's text says to the operations, and the models that they run."""

from __future__ import annotations

import math
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastlstm import _core
from fastlstm._arguments import RealArray
from fastlstm._parameters import parameter_count, parameter_shapes
from fastlstm.torch._memory import joined
from fastlstm.torch._spec import from_text

#: Packed parameters of more bytes are not kept for the next call: packing them takes little of the
#: time that it takes to read them.
_KEPT_BYTES = 64 * 1024 * 1024


class _Kept(NamedTuple):
    """A model, and the parameters that it was made of, end to end; never changed."""

    model: _core.Model
    contents: RealArray


class Program:
    """What a spec's text says, and a model of it.

    Attributes
    ----------
    spec : Spec
    dtype : torch.dtype
    count : int
        n: numbers of all parameters.
    shapes : list of tuple of int
        Of the parameters.
    rows, width : int
        L*D and D*P.
    kept : _Kept or None
        The last that ran, if it is small: for parameters of the very same bytes, so that none is
        ever stale. The backward pass reads a model's options alone, and the parameters from their
        tensors, so any model of the spec will do there.
    """

    def __init__(self, text: str) -> None:
        self.spec = from_text(text)
        self.dtype = torch.float64 if self.spec.dtype == np.float64 else torch.float32
        self.count = parameter_count(self.spec)
        self.shapes: list[tuple[int, ...]] = [shape for _, shape in parameter_shapes(self.spec)]
        self.rows = self.spec.num_layers * self.spec.num_directions
        self.width = self.spec.num_directions * self.spec.output_size
        self.kept: _Kept | None = None

    @cached_property
    def record_size(self) -> int:
        """R: numbers that a tape has for each step of a sequence, in a layer and a direction."""
        one = self.spec._replace(input_size=1, num_layers=1, num_directions=1, reverse=False)
        model = _core.Model(one, np.zeros(parameter_count(one), one.dtype), None)
        return model.tape_size(1, 1)

    def split(self, parameters: Tensor) -> list[Tensor]:
        """Return views of the parameters that one vector holds."""
        parts = parameters.split([math.prod(shape) for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def read(self, parameters: Any) -> RealArray:
        """Return the numbers of parameters end to end: the kept ones, if they are the same."""
        shapes = self.shapes
        if type(parameters) is not tuple:
            if parameters.shape != (self.count,):
                raise ValueError("parameters of another shape")
            parameters, shapes = (parameters,), [(self.count,)]
        kept = self.kept
        return joined(parameters, shapes, kept and kept.contents, self.count, self.dtype)

    def pack(self, contents: RealArray) -> _core.Model:
        """Return the model of what `read` returned."""
        kept = self.kept
        if kept is not None and kept.contents is contents:
            return kept.model
        model = _core.Model(self.spec, contents, None)
        self.kept = _Kept(model, contents) if model.nbytes <= _KEPT_BYTES else None
        return model


@lru_cache(maxsize=256)
def program_of(spec: str) -> Program:
    """Return what a text of :func:`fastlstm.torch._spec.to_text` says.

    Raises
    ------
    TypeError, ValueError
        If it is none, or an option is wrong.
    """
    return Program(spec)
