"""The layer of `torch.nn.LSTM`'s face: constructor, parameters, results and errors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import RNNBase
from torch.nn.utils.rnn import PackedSequence

from fastlstm._spec import USUAL, as_spec
from fastlstm.torch import _autograd, _ops
from fastlstm.torch._context import (
    COMPUTED_IN,
    are_plain,
    autocast_dtype,
    converted,
    is_bare,
    is_eager,
    why_not,
)
from fastlstm.torch._dropping import draw, drop_weights
from fastlstm.torch._memory import TENSORS, run_arrays
from fastlstm.torch._options import (
    as_theirs,
    make_parameters,
    own_options,
    parameters_of,
    refuse,
    representation,
    reset_norms,
    say_once,
    specs_of,
)
from fastlstm.torch._results import check_dimensions, last_outputs, merged
from fastlstm.torch._sequences import Rows
from fastlstm.torch._spec import to_text
from fastlstm.torch._tracing import as_node, is_traced
from fastlstm.torch._weights import HoldsPackedWeights
from fastlstm.variants import NO_MASKS, Cell, Masks

State: TypeAlias = tuple[Tensor, Tensor]

#: One tensor or packed sequences, or with ``merge_mode=None`` a pair.
Output: TypeAlias = Any

#: PyTorch's own, also where someone puts this package's in its place.
_THEIRS = torch.nn.LSTM


class LSTM(HoldsPackedWeights, RNNBase):
    """Long short-term memory as ``torch.nn.LSTM`` has it, on the kernels of this package.

    Constructor, names, order, shapes and first values of the parameters, results and errors are
    those of ``torch.nn.LSTM``, which is the base class's other child; gradients, transforms,
    ``torch.compile`` and ``torch.export`` work. float32 and float64 are computed as they are,
    bfloat16 and float16 in float32.

    What the kernels do not have goes to PyTorch's own implementation, and a warning says so once:
    other devices and dtypes, sparse or nested tensors, subclasses of ``Tensor``, and calls that
    ``torch.jit.trace`` records. With options of this package's own that is an error.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size
        As of ``torch.nn.LSTM``.
    device, dtype : optional
        Of the parameters.
    peepholes, coupled_gates, gate_activation, cell_activation, output_activation, clip, cell_clip,
    layer_norm, recurrent_dropout, weight_dropout, zoneout_h, zoneout_c, reverse, merge_mode,
    return_sequences
        As of :class:`fastlstm.LSTM` and :class:`fastlstm.BiLSTM`. The rates drop in training mode,
        with PyTorch's generator; outside of it zoneout is the expectation.
    strict : bool, default False
        Whether what the kernels do not have is an error, instead of going to PyTorch's.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, weight_hr_l0, ... : Parameter
        As of ``torch.nn.LSTM``, with those of :meth:`fastlstm.LSTM.state_dict` that it has not.
    cell : Cell
        The options of the cell, read-only.

    Raises
    ------
    TypeError, ValueError
        If an option is of the wrong type or out of range.

    Examples
    --------
    >>> import torch
    >>> from fastlstm.torch import LSTM
    >>> lstm = LSTM(10, 20, 2)
    >>> y, (h_n, c_n) = lstm(torch.randn(5, 3, 10))
    >>> y.shape, h_n.shape
    (torch.Size([5, 3, 20]), torch.Size([2, 3, 20]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = USUAL.num_layers,
        bias: bool = USUAL.bias,
        batch_first: bool = USUAL.batch_first,
        dropout: float = USUAL.rates.dropout,
        bidirectional: bool = False,
        proj_size: int = USUAL.proj_size,
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
        recurrent_dropout: float = USUAL.rates.recurrent_dropout,
        weight_dropout: float = USUAL.rates.weight_dropout,
        zoneout_h: float = USUAL.cell.zoneout_h,
        zoneout_c: float = USUAL.cell.zoneout_c,
        reverse: bool = USUAL.reverse,
        merge_mode: str | None = USUAL.merge_mode,
        return_sequences: bool = USUAL.return_sequences,
        strict: bool = False,
    ) -> None:
        super().__init__(
            "LSTM",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
        )
        options = {
            "input_size": input_size,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "bias": bias,
            "proj_size": proj_size,
            "peepholes": peepholes,
            "coupled_gates": coupled_gates,
            "gate_activation": gate_activation,
            "cell_activation": cell_activation,
            "output_activation": output_activation,
            "clip": clip,
            "cell_clip": cell_clip,
            "layer_norm": layer_norm,
            "zoneout_h": zoneout_h,
            "zoneout_c": zoneout_c,
            "reverse": reverse,
        }
        D = 2 if bidirectional else 1
        self.strict = strict
        # What the kernels run: time-major, without merging, drawing and leaving out.
        self._specs = specs_of(D, **options)
        self._texts = {precision: to_text(spec) for precision, spec in self._specs.items()}
        outer = as_spec(
            D,
            recurrent_dropout=recurrent_dropout,
            weight_dropout=weight_dropout,
            merge_mode=merge_mode,
            return_sequences=return_sequences,
            **options,
        )
        self._rates = outer.rates
        self._draws = any((*outer.rates, outer.cell.zoneout_h, outer.cell.zoneout_c))
        self.merge_mode = outer.merge_mode
        self.return_sequences = outer.return_sequences
        self._own = own_options(outer, ("num_layers", "bias", "proj_size"))
        if peepholes or coupled_gates or layer_norm:
            make_parameters(self, outer, device, dtype)
            self.reset_parameters()

    @property
    def cell(self) -> Cell:
        """What a cell computes."""
        return self._specs[torch.float32].cell

    @property
    def reverse(self) -> bool:
        """Whether every layer runs from the last step to the first."""
        return self._specs[torch.float32].reverse

    @property
    def recurrent_dropout(self) -> float:
        """How often training drops numbers of h_{t-1}."""
        return self._rates.recurrent_dropout

    @property
    def weight_dropout(self) -> float:
        """How often training drops numbers of U."""
        return self._rates.weight_dropout

    def reset_parameters(self) -> None:
        """Draw the parameters anew, as ``torch.nn.LSTM`` does; scales are 1 and shifts 0."""
        super().reset_parameters()
        reset_norms(self)

    def extra_repr(self) -> str:
        """Return the options that are not at their default."""
        return super().extra_repr() + representation(self._own, self.strict)

    def forward(
        self,
        input: Any,  # noqa: A002  # its name in torch.nn.LSTM
        hx: State | None = None,
        *,
        lengths: Any = None,
        resets: Any = None,
    ) -> tuple[Output, State]:
        """Run the layer over one sequence or a batch of sequences.

        Parameters
        ----------
        input : Tensor (T, B, I), (B, T, I) with ``batch_first``, (T, I), or PackedSequence
        hx : (h_0, c_0), optional
            (L*D, B, P) and (L*D, B, H), or (L*D, P) and (L*D, H) with an input (T, I).
        lengths, resets : optional
            As of a call of :class:`fastlstm.LSTM`: steps of each sequence (B,), with zeros in the
            output beyond them, and where the state is zero again before a step.

        Returns
        -------
        output : Tensor (T, B, D*P), (B, T, D*P), (T, D*P), or PackedSequence
            With ``merge_mode`` as it says; with ``return_sequences=False`` each direction's last
            one alone, (B, D*P) or (D*P,).
        (h_n, c_n) : tuple of Tensor
            Of the shapes of (h_0, c_0).

        Raises
        ------
        RuntimeError, ValueError
            As of ``torch.nn.LSTM``.
        TypeError, ValueError
            If ``lengths`` or ``resets`` are wrong.
        """
        if not torch.compiler.is_compiling() and lengths is None and resets is None and is_eager():
            run = self._run_recorded if torch.is_grad_enabled() else self._run_bare
            found = run(input, hx)
            if found is not None:
                return found
        if is_traced(input):
            return as_node(self, input, hx, lengths=lengths, resets=resets)
        weights = parameters_of(self, self._flat_weights_names)
        packed = isinstance(input, PackedSequence)
        data = input.data if packed else input
        reason = why_not((data, *(() if hx is None else hx), *weights))
        if reason is not None:
            given = {"lengths": lengths, "resets": resets}
            asked = [name for name, value in given.items() if value is not None]
            refuse("LSTM", reason, [*self._own, *asked], self.strict)
            found = self._run_theirs(input, hx)  # which may raise
            say_once("LSTM", reason)
            return found
        if packed:
            if lengths is not None or resets is not None:
                raise ValueError(
                    "lengths, resets: got them with a PackedSequence, expected a Tensor"
                )
            return self._run_packed(input, hx, weights)
        return self._run_padded(input, hx, weights, lengths, resets)

    def _run_bare(self, x: Any, hx: Any) -> tuple[Tensor, State] | None:
        """Run the kernels on memory of tensors; None, having done nothing, where that is too much.

        What is unusual or wrong is left to the longer way.
        """
        if not self._is_usual() or not are_plain(x, hx):
            return None
        model = self._packed_model(self._specs[torch.float32], self._flat_weights_names)
        if model is None:
            return None
        if TENSORS is None:
            return run_arrays(model, x, hx, self.batch_first)
        h_0, c_0 = (None, None) if hx is None else hx
        found = TENSORS.forward(model, x, h_0, c_0, self.batch_first, False)
        if found is None:
            return None
        y, h_n, c_n = found
        return y, (h_n, c_n)

    def _run_recorded(self, x: Any, hx: Any) -> tuple[Tensor, State] | None:
        """Do the same where gradients may be asked for."""
        if not self._is_usual() or not are_plain(x, hx) or x.is_nested or x.dim() != 3:
            return None
        text = self._texts.get(x.dtype)
        if text is None:
            return None
        x = x.transpose(0, 1) if self.batch_first else x
        if hx is None:
            h_shape, c_shape = self._state_shapes(x.shape[1])
            zeros = x.new_zeros(h_shape)
            hx = zeros, zeros if c_shape == h_shape else x.new_zeros(c_shape)
        weights = parameters_of(self, self._flat_weights_names)
        found = _autograd.lstm_in_place(x, hx[0], hx[1], weights, spec=text)
        if found is None:
            return None
        y, h_n, c_n = found
        return y.transpose(0, 1) if self.batch_first else y, (h_n, c_n)

    # No properties, whose missing attributes a module says are the properties' own.

    def _is_usual(self) -> bool:
        """Whether nothing is drawn before the kernels, and nothing merged or left out after."""
        if self.merge_mode != "concat" or not self.return_sequences:
            return False
        return not (self.training and self._drops())

    def _drops(self) -> bool:
        """Whether training draws anything."""
        return self._draws or bool(self.dropout and self.num_layers > 1)

    def _run_padded(
        self, x: Tensor, hx: State | None, weights: list[Tensor], lengths: Any, resets: Any
    ) -> tuple[Output, State]:
        """Run a call of a tensor that the kernels can be given."""
        if x.dim() not in (2, 3):
            raise ValueError(f"LSTM: Expected input to be 2D or 3D, got {x.dim()}D instead")
        is_batched = x.dim() == 3
        batch_dim = 0 if self.batch_first else 1
        if not is_batched:
            x = x.unsqueeze(batch_dim)
        if hx is not None:
            check_dimensions(hx, is_batched)
            if not is_batched:
                hx = hx[0].unsqueeze(1), hx[1].unsqueeze(1)
        state = self._state_for(x, hx, None)
        if lengths is not None or resets is not None:
            y, h_n, c_n = self._run_ragged(x, state, weights, lengths, resets, is_batched)
        else:
            if not torch.compiler.is_compiling() and x.shape[1 - batch_dim] == 0:
                raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
            steps = x.transpose(0, 1) if self.batch_first else x
            y, h_n, c_n = self._run(steps, state, weights)
            y = y.transpose(0, 1) if self.batch_first else y
        if not self.return_sequences:
            y = last_outputs(h_n, self.bidirectional)
            batch_dim = 0
        if not is_batched:
            y, h_n, c_n = y.squeeze(batch_dim), h_n.squeeze(1), c_n.squeeze(1)
        return merged(y, self.merge_mode), (h_n, c_n)

    def _run_packed(
        self, sequences: PackedSequence, hx: State | None, weights: list[Tensor]
    ) -> tuple[Output, State]:
        """Run a call of packed sequences."""
        x, batch_sizes, sorted_indices, unsorted_indices = sequences
        if hx is not None and sorted_indices is not None:
            hx = hx[0].index_select(1, sorted_indices), hx[1].index_select(1, sorted_indices)
        state = self._state_for(x, hx, batch_sizes)
        y, h_n, c_n = self._run(x, state, weights, batch_sizes)
        if unsorted_indices is not None:
            h_n = h_n.index_select(1, unsorted_indices)
            c_n = c_n.index_select(1, unsorted_indices)
        if not self.return_sequences:
            return merged(last_outputs(h_n, self.bidirectional), self.merge_mode), (h_n, c_n)
        output = merged(y, self.merge_mode)
        parts = [
            PackedSequence(part, batch_sizes, sorted_indices, unsorted_indices)
            for part in (output if self.merge_mode is None else (output,))
        ]
        return tuple(parts) if self.merge_mode is None else parts[0], (h_n, c_n)

    def _run_ragged(
        self,
        x: Tensor,
        state: State,
        weights: list[Tensor],
        lengths: Any,
        resets: Any,
        is_batched: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run a call of a batch with lengths, or resets, or both: y is padded as x is."""
        batch_dim = 0 if self.batch_first else 1
        shape = x.shape if is_batched else x.squeeze(batch_dim).shape
        is_reverse = (False, True) if self.bidirectional else (self.reverse,)
        rows = Rows(shape, self.batch_first, lengths, resets, is_reverse)
        h_0, c_0 = (rows.spread(part) for part in state)
        y, h_n, c_n = self._run(rows.pack(x), (h_0, c_0), weights, rows.batch_sizes, rows)
        return rows.unpack(y, x.shape), rows.collect(h_n), rows.collect(c_n)

    def _run(
        self,
        x: Tensor,
        state: State,
        weights: Sequence[Tensor],
        batch_sizes: Tensor | None = None,
        rows: Rows | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run time-major sequences, or packed rows, in the dtype of the kernels and back."""
        cast = autocast_dtype(x.dtype)
        given = x.dtype if cast is None else cast
        computed, masks = COMPUTED_IN[given], NO_MASKS
        if self.training and self._drops():
            masks = self._draw(x.detach().to(given), state[0].shape[1], rows, computed)
            weights = drop_weights(self._flat_weights_names, weights, self.weight_dropout)
        tensors: Sequence[Tensor] = (x, *state, *weights)
        if computed is x.dtype and cast is None:
            return self._run_kernels(tensors, batch_sizes, masks, computed)
        with nullcontext() if cast is None else torch.autocast("cpu", enabled=False):
            tensors = [converted(tensor, computed) for tensor in tensors]
            y, h_n, c_n = self._run_kernels(tensors, batch_sizes, masks, computed)
        return y.to(given), h_n.to(given), c_n.to(given)

    def _run_kernels(
        self, tensors: Sequence[Tensor], batch_sizes: Tensor | None, masks: Masks, dtype: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, h_0, c_0, *parameters = tensors
        spec = self._texts[dtype]
        bare = not torch.compiler.is_compiling() and is_bare() and are_plain(x, (h_0, c_0))
        if bare and not (self.training and self._drops()):
            model = self._packed_model(self._specs[torch.float32], self._flat_weights_names)
            if model is not None:
                return _ops.run_model(model, spec, x, h_0, c_0, batch_sizes)
        return _autograd.lstm(
            x, h_0, c_0, parameters, batch_sizes=batch_sizes, masks=masks, spec=spec
        )

    def _draw(
        self, like: Tensor, batch_size: int, rows: Rows | None, computed: torch.dtype
    ) -> Masks:
        """Draw the masks of a call, of packed sequences or pieces in their order."""
        rates = self._rates._replace(dropout=self.dropout)
        B = batch_size if rows is None else rows.batch_size
        masks: Any = draw(like, self._specs[torch.float32], rates, like.shape[:-1], B)
        if rows is not None and masks.recurrent is not None:
            masks = masks._replace(recurrent=rows.of_pieces(masks.recurrent))
        return Masks(*(None if mask is None else mask.to(computed) for mask in masks))

    def _state_shapes(self, B: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        rows, H = self.num_layers * (2 if self.bidirectional else 1), self.hidden_size
        return (rows, B, self.proj_size or H), (rows, B, H)

    def _state_for(self, x: Tensor, hx: State | None, batch_sizes: Tensor | None) -> State:
        """Return the initial states of a call, checked with x; zeros where there are none."""
        self.check_input(x, batch_sizes)
        if batch_sizes is not None:
            B = int(batch_sizes[0])
        else:
            B = x.shape[0] if self.batch_first else x.shape[1]
        h_shape, c_shape = self._state_shapes(B)
        if hx is None:
            return x.new_zeros(h_shape), x.new_zeros(c_shape)
        for name, part, shape in (("0", hx[0], h_shape), ("1", hx[1], c_shape)):
            if part.shape != shape:
                self.check_hidden_size(part, shape, f"Expected hidden[{name}] size {{}}, got {{}}")
        if len(hx) != 2:
            raise RuntimeError("lstm expects two hidden states")
        return hx[0], hx[1]

    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:  # noqa: A002
        """Check an input as ``torch.nn.LSTM`` does, with the parameters as they are now.

        The base class looks at a list of them, which ``torch.func.functional_call`` leaves as it
        was.
        """
        dtype = self.weight_ih_l0.dtype
        if input.dtype != dtype and not torch._C._is_any_autocast_enabled():
            raise ValueError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({dtype}). Convert "
                f"input: input.to({dtype}), or convert model: model.to({input.dtype})"
            )
        dimensions = 2 if batch_sizes is not None else 3
        if input.dim() != dimensions:
            raise RuntimeError(f"input must have {dimensions} dimensions, got {input.dim()}")
        if self.input_size != input.size(-1):
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got "
                f"{input.size(-1)}"
            )

    # What torch.nn.LSTM does with them when calls are left to it.
    get_expected_cell_size: Any = _THEIRS.get_expected_cell_size
    check_forward_args: Any = _THEIRS.check_forward_args
    permute_hidden: Any = _THEIRS.permute_hidden

    def _run_theirs(self, x: Any, hx: State | None) -> tuple[Output, State]:
        """Leave a call to PyTorch's own computation."""
        theirs: Any = _THEIRS.forward
        found: tuple[Output, State] = theirs(self, x, hx)
        return found

    def __prepare_scriptable__(self) -> torch.nn.LSTM:
        """Return PyTorch's module of the same parameters, which ``torch.jit.script`` compiles."""
        reason = "calls that torch.jit.script compiles"
        refuse("LSTM", reason, self._own, self.strict)
        say_once("LSTM", reason)
        return as_theirs(self, self._flat_weights_names)
