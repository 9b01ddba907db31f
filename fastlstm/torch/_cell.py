"""One step of one layer, of `torch.nn.LSTMCell`'s face."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import Parameter, RNNCellBase

from fastlstm._parameters import parameter_shapes
from fastlstm._spec import USUAL
from fastlstm.torch import _autograd
from fastlstm.torch._context import (
    COMPUTED_IN,
    are_plain,
    autocast_dtype,
    converted,
    is_bare,
    why_not,
)
from fastlstm.torch._dropping import draw
from fastlstm.torch._options import (
    own_options,
    parameters_of,
    refuse,
    representation,
    reset_norms,
    say_once,
    specs_of,
)
from fastlstm.torch._spec import to_text
from fastlstm.torch._tracing import as_node, is_traced
from fastlstm.torch._weights import HoldsPackedWeights
from fastlstm.variants import NO_MASKS, Cell

State: TypeAlias = tuple[Tensor, Tensor]

#: PyTorch's own, also where someone puts this package's in its place.
_THEIRS = torch.nn.LSTMCell


class LSTMCell(HoldsPackedWeights, RNNCellBase):
    """One step of an LSTM as ``torch.nn.LSTMCell`` has it, on the kernels of this package.

    What is said of :class:`fastlstm.torch.LSTM` holds of it, too. A loop over steps of a sequence
    is what a layer does in one call, and several times as fast.

    Parameters
    ----------
    input_size, hidden_size, bias, device, dtype
        As of ``torch.nn.LSTMCell``.
    peepholes, coupled_gates, gate_activation, cell_activation, output_activation, clip, cell_clip,
    layer_norm, zoneout_h, zoneout_c
        As of :class:`fastlstm.LSTM`.
    strict : bool, default False
        Whether what the kernels do not have is an error, instead of going to PyTorch's.

    Attributes
    ----------
    weight_ih, weight_hh, bias_ih, bias_hh : Parameter
        As of ``torch.nn.LSTMCell``; with ``peepholes`` weight_ci, weight_cf and weight_co (H,), and
        with ``layer_norm`` scale_ih and scale_hh (4H,), scale_c and shift_c (H,).

    Raises
    ------
    TypeError, ValueError
        If an option is of the wrong type or out of range.

    Examples
    --------
    >>> import torch
    >>> from fastlstm.torch import LSTMCell
    >>> cell = LSTMCell(10, 20)
    >>> h, c = cell(torch.randn(3, 10))
    >>> h, c = cell(torch.randn(3, 10), (h, c))
    >>> h.shape
    torch.Size([3, 20])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = USUAL.bias,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        peepholes: bool = USUAL.cell.peepholes,
        coupled_gates: bool = USUAL.cell.coupled_gates,
        gate_activation: str = USUAL.cell.gate_activation,
        cell_activation: str = USUAL.cell.cell_activation,
        output_activation: str = USUAL.cell.output_activation,
        clip: float | None = USUAL.cell.clip,
        cell_clip: float | None = USUAL.cell.cell_clip,
        layer_norm: bool = USUAL.cell.layer_norm,
        zoneout_h: float = USUAL.cell.zoneout_h,
        zoneout_c: float = USUAL.cell.zoneout_c,
        strict: bool = False,
    ) -> None:
        specs = specs_of(
            1,
            input_size=input_size,
            hidden_size=hidden_size,
            bias=bias,
            peepholes=peepholes,
            coupled_gates=coupled_gates,
            gate_activation=gate_activation,
            cell_activation=cell_activation,
            output_activation=output_activation,
            clip=clip,
            cell_clip=cell_clip,
            layer_norm=layer_norm,
            zoneout_h=zoneout_h,
            zoneout_c=zoneout_c,
        )
        spec = specs[torch.float32]
        super().__init__(input_size, hidden_size, bias, spec.gates, device, dtype)
        self.strict = strict
        self._specs = specs
        self._texts = {precision: to_text(spec) for precision, spec in specs.items()}
        self._own = own_options(spec, ("bias",))
        self._drops = any((spec.cell.zoneout_h, spec.cell.zoneout_c))
        shapes = {name.removesuffix("_l0"): shape for name, shape in parameter_shapes(spec)}
        self._names = list(shapes)
        for name in [name for name in shapes if name not in self._parameters]:
            empty = torch.empty(shapes[name], device=device, dtype=dtype)
            self.register_parameter(name, Parameter(empty))
        if peepholes or layer_norm:
            self.reset_parameters()

    @property
    def cell(self) -> Cell:
        """What the cell computes."""
        return self._specs[torch.float32].cell

    def reset_parameters(self) -> None:
        """Draw the parameters anew, as ``torch.nn.LSTMCell`` does; scales are 1 and shifts 0."""
        super().reset_parameters()
        reset_norms(self)

    def extra_repr(self) -> str:
        """Return the options that are not at their default."""
        return super().extra_repr() + representation(self._own, self.strict)

    def forward(
        self,
        input: Tensor,  # noqa: A002  # its name in torch.nn.LSTMCell
        hx: State | None = None,
    ) -> State:
        """Run one step.

        Parameters
        ----------
        input : Tensor (B, I) or (I,)
        hx : (h_0, c_0), optional
            (B, H) both, or (H,). Zeros when omitted.

        Returns
        -------
        (h_1, c_1) : tuple of Tensor
            Likewise.

        Raises
        ------
        RuntimeError, ValueError
            As of ``torch.nn.LSTMCell``.
        """
        if not torch.compiler.is_compiling() and is_bare():
            found = self._run_bare(input, hx)
            if found is not None:
                return found
        if is_traced(input):
            return as_node(self, input, hx)
        weights = parameters_of(self, self._names)
        reason = why_not((input, *(() if hx is None else hx), *weights))
        if reason is not None:
            refuse("LSTMCell", reason, self._own, self.strict)
            found = self._run_theirs(input, hx)  # which may raise
            say_once("LSTMCell", reason)
            return found
        if not self._own and not self._fits(input, hx):
            return self._run_theirs(input, hx)  # which has the errors
        return self._run(input, hx, weights)

    def _run_bare(self, x: Any, hx: Any) -> State | None:
        """Run the kernels on memory of tensors; None, having done nothing, where that is too much.

        What is unusual or wrong is left to the longer way.
        """
        if self._drops and self.training:
            return None
        if not are_plain(x, hx):
            return None
        try:
            step = x.numpy()[None]
            state = None if hx is None else (hx[0].numpy()[None], hx[1].numpy()[None])
        except (RuntimeError, TypeError):
            return None
        model = self._packed_model(self._specs[torch.float32], self._names)
        found = None if model is None else model.run_plain(step, state, None, None)
        if found is None:
            return None
        _, (h_1, c_1) = found
        return torch.from_numpy(h_1[0]), torch.from_numpy(c_1[0])

    def _fits(self, x: Tensor, hx: State | None) -> bool:
        """Tell whether shapes are such as `forward` takes."""
        if x.dim() not in (1, 2) or x.shape[-1] != self.input_size:
            return False
        shape = (*x.shape[:-1], self.hidden_size)
        return hx is None or (len(hx) == 2 and all(part.shape == shape for part in hx))

    def _run_theirs(self, x: Tensor, hx: State | None) -> State:
        """Leave a call to PyTorch's own computation."""
        theirs: Any = _THEIRS.forward
        found: State = theirs(self, x, hx)
        return found

    def _run(self, x: Tensor, hx: State | None, weights: list[Tensor]) -> State:
        """Run a step in the dtype of the kernels and back."""
        is_batched = x.dim() == 2
        steps = x[None] if is_batched else x[None, None]  # (T, B, I)
        if hx is None:
            zeros = x.new_zeros(1, steps.shape[1], self.hidden_size)
            h_0, c_0 = zeros, zeros
        else:
            h_0, c_0 = (part[None] if is_batched else part[None, None] for part in hx)
        cast = autocast_dtype(x.dtype)
        # Of a cell, autocast knows the products alone.
        given = x.dtype if cast is None else torch.promote_types(cast, c_0.dtype)
        computed = COMPUTED_IN[given]
        masks = NO_MASKS
        if self._drops and self.training:
            spec, shape = self._specs[torch.float32], steps.shape[:2]
            masks = draw(steps.detach().to(computed), spec, spec.rates, shape, shape[1])
        tensors = (steps, h_0, c_0, *weights)
        steps, h_0, c_0, *parameters = (converted(tensor, computed) for tensor in tensors)
        with nullcontext() if cast is None else torch.autocast("cpu", enabled=False):
            _, h_1, c_1 = _autograd.lstm(
                steps, h_0, c_0, parameters, masks=masks, spec=self._texts[computed]
            )
        h_1, c_1 = (part[0] if is_batched else part[0, 0] for part in (h_1, c_1))
        return h_1.to(given), c_1.to(given)

    def __prepare_scriptable__(self) -> torch.nn.LSTMCell:
        """Return PyTorch's module of the same parameters, which ``torch.jit.script`` compiles."""
        reason = "calls that torch.jit.script compiles"
        refuse("LSTMCell", reason, self._own, self.strict)
        say_once("LSTMCell", reason)
        theirs = _THEIRS(self.input_size, self.hidden_size, self.bias, device="meta")
        for name in self._names:
            theirs._parameters[name] = getattr(self, name)
        return theirs.train(self.training)
