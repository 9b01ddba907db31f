"""What calls a layer has; what it holds is in ``_base.py``, how a call runs in ``_call.py``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from fastlstm import _call, _tracing
from fastlstm._arguments import RealArray
from fastlstm._base import Layer
from fastlstm._call import State
from fastlstm._parameters import initialise
from fastlstm._spec import USUAL, as_spec
from fastlstm.tape import Tape
from fastlstm.trace import Trace

if TYPE_CHECKING:
    from fastlstm._conventions import Parts


class LSTMBase(Layer):
    """What :class:`LSTM` and :class:`BiLSTM` share; they differ in the number of directions.

    For ``isinstance(layer, LSTMBase)`` and annotations; a layer is one of the two, and making one
    of this raises ``TypeError``.
    """

    __slots__ = ()

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = USUAL.num_layers,
        *,
        bias: bool = USUAL.bias,
        batch_first: bool = USUAL.batch_first,
        proj_size: int = USUAL.proj_size,
        peepholes: bool = USUAL.cell.peepholes,
        coupled_gates: bool = USUAL.cell.coupled_gates,
        gate_activation: str = USUAL.cell.gate_activation,
        cell_activation: str = USUAL.cell.cell_activation,
        output_activation: str = USUAL.cell.output_activation,
        clip: float | None = USUAL.cell.clip,
        cell_clip: float | None = USUAL.cell.cell_clip,
        layer_norm: bool = USUAL.cell.layer_norm,
        dropout: float = USUAL.rates.dropout,
        recurrent_dropout: float = USUAL.rates.recurrent_dropout,
        weight_dropout: float = USUAL.rates.weight_dropout,
        zoneout_h: float = USUAL.cell.zoneout_h,
        zoneout_c: float = USUAL.cell.zoneout_c,
        reverse: bool = USUAL.reverse,
        merge_mode: str | None = USUAL.merge_mode,
        return_sequences: bool = USUAL.return_sequences,
        dtype: npt.DTypeLike = USUAL.dtype,
        forget_bias: float | None = None,
        seed: int | np.random.Generator | None = None,
        isa: str | None = None,
    ) -> None:
        if not hasattr(self, "num_directions"):
            raise TypeError(f"{type(self).__name__}: no layer by itself, expected LSTM or BiLSTM")
        self._spec = as_spec(
            self.num_directions,
            input_size=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            proj_size=proj_size,
            peepholes=peepholes,
            coupled_gates=coupled_gates,
            gate_activation=gate_activation,
            cell_activation=cell_activation,
            output_activation=output_activation,
            clip=clip,
            cell_clip=cell_clip,
            layer_norm=layer_norm,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            weight_dropout=weight_dropout,
            zoneout_h=zoneout_h,
            zoneout_c=zoneout_c,
            reverse=reverse,
            merge_mode=merge_mode,
            return_sequences=return_sequences,
            dtype=dtype,
        )
        self._isa_asked = isa
        self._set_weights(initialise(self._spec, forget_bias, seed), isa)

    def __call__(
        self,
        x: npt.ArrayLike,
        state: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        offsets: npt.ArrayLike | None = None,
        resets: npt.ArrayLike | None = None,
        out: RealArray | None = None,
    ) -> tuple[Any, State]:
        """Run the layer over one sequence or a batch of sequences.

        Parameters
        ----------
        x : array_like (T, B, I), (B, T, I) with ``batch_first``, or (T, I) for one sequence
            Any strides; any real dtype, converted to the layer's as by ``ndarray.astype``. Where
            the dtype is right and the last axis has no gaps it is read in place, never copied.
            T = 0 and B = 0 are allowed. Tensors of other libraries are arrays like any other, here
            and everywhere: in bfloat16 too, and where they require a gradient, but none flows back
            to them (`record` has gradients). So are tables, whose columns are the last axis.
        state : (h_0, c_0), optional
            Initial hidden and cell state of each layer and direction, (L*D, B, P) and (L*D, B, H),
            or (L*D, P) and (L*D, H) with x (T, I); index l*D + d. P is H where there is no
            projection. Zeros when omitted.
        lengths : array_like (B,) of integers, optional
            Steps of each sequence, from 0 to T, in any order: the rest of x is padding, whose
            values do not matter, and the work is that of the steps there are. y is 0 beyond a
            length, (h_n, c_n) are those after a sequence's own last step (with length 0 its initial
            ones), and a reverse direction begins there.
        offsets : array_like (B + 1,) of integers, optional
            For sequences of different lengths without padding: x is (N, I), sequence b its rows
            offsets[b] to offsets[b + 1] - 1, and y (N, D*P) likewise.
        resets : array_like of bool, (T, B), (B, T) with ``batch_first``, (T,) or (N,), optional
            Where the state is zero again before a step, as where an episode ends inside a
            sequence. Each piece between two resets gives the bits it gives alone: a reverse
            direction begins at its end, and h_0 counts up to the first reset, or, of a reverse
            direction, down to the last.
        out : ndarray, optional
            Takes the result y instead of a new array: of y's shape and the layer's dtype,
            C-contiguous, sharing no memory with the inputs.

        Returns
        -------
        y : ndarray (T, B, D*P), (B, T, D*P) with ``batch_first``, or (T, D*P)
            Hidden states of the last layer, those of the forward direction first, or merged as
            ``merge_mode`` says. With ``return_sequences=False`` each direction's last one alone,
            (B, D*P) or (D*P,).
        (h_n, c_n) : tuple of ndarray
            States after each direction's last step, of the shape of the initial ones; with T = 0
            equal to them.

        Raises
        ------
        TypeError
            If an argument does not hold real numbers, or ``out`` is not an array of the dtype.
        ValueError
            If a shape or layout is wrong, or ``out`` overlaps an input.

        Notes
        -----
        NaN and infinity propagate as the equations have it; they are no error. Denormal numbers
        count as zero.

        A long call of the main thread gives way to signals: Ctrl-C ends it within a tenth of a
        second (a step of some sequences, if that takes longer). ``out`` then holds anything.
        """
        if offsets is None and resets is None:
            results = self._weights.model.run_plain(x, state, lengths, out)
            if results is not None:
                return results
        return _call.run(self._spec, self._weights, x, state, lengths, offsets, resets, out)

    def record(
        self,
        x: npt.ArrayLike,
        state: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        offsets: npt.ArrayLike | None = None,
        resets: npt.ArrayLike | None = None,
        rng: int | np.random.Generator | None = None,
    ) -> tuple[Any, State, Tape]:
        """Run the layer as a call does, to the bit, and keep what its gradients need.

        Parameters
        ----------
        x, state, lengths, offsets, resets
            As for a call. Gradients with respect to padding are 0.
        rng : int or numpy.random.Generator
            Needed by a layer that drops (``dropout``, ``recurrent_dropout``, ``weight_dropout``,
            ``zoneout_h``, ``zoneout_c``), left as it is by others. One number is drawn for each
            sequence, and all its masks come of it: a batch in two calls gives the masks of one
            call, but for that of U, one for each call, which comes of its first sequence's number.

        Returns
        -------
        y : ndarray
        (h_n, c_n) : tuple of ndarray
        tape : Tape
            Its ``backward`` gives the gradients. 5*L*D*T*B*H numbers; of a variant L*D*T*B*P more.

        Raises
        ------
        TypeError, ValueError
            As a call; TypeError of a quantised layer, too. The generator is then as it was.
        MemoryError
            If the tape doesn't fit. Likewise.

        Notes
        -----
        For truncated backpropagation through time, record the chunks of a sequence one after the
        other, those of a ``reverse`` layer from the end, handing (h_n, c_n) on, and run each tape's
        ``backward`` by itself. The gradient of the whole sequence comes from running them in the
        opposite order, handing (grads.h_0, grads.c_0) to the chunk before as ``dstate``.

        Examples
        --------
        >>> import numpy as np
        >>> from fastlstm import LSTM
        >>> lstm = LSTM(3, 5, seed=0)
        >>> y, (h_n, c_n), tape = lstm.record(np.ones((10, 4, 3), np.float32))
        >>> grads = tape.backward(np.ones_like(y), wrt=["params"])  # of y.sum()
        >>> lstm.named_views(grads.params)["weight_hh_l0"].shape
        (20, 5)
        """
        return _call.record(self._spec, self._weights, x, state, lengths, offsets, resets, rng)

    def trace(
        self,
        x: npt.ArrayLike,
        state: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        offsets: npt.ArrayLike | None = None,
        resets: npt.ArrayLike | None = None,
        names: str | Iterable[str] | None = None,
        layers: npt.ArrayLike | slice | None = None,
        units: npt.ArrayLike | slice | None = None,
        steps: npt.ArrayLike | slice | None = None,
        to: str | os.PathLike[str] | None = None,
    ) -> Trace:
        """Run the layer as a call does, to the bit, and keep its gates and states.

        Parameters
        ----------
        x, state, lengths, offsets, resets
            As for a call. With ``offsets`` arrays are (R, N, H), their rows those of x.
        names : str or sequence of str, optional
            What to keep; the gates "i", "f", "g", "o" after activation, "c" and "h" when omitted.
            Besides there are, or "all" for all of them:

            - "z_i", "z_f", "z_g", "z_o", what activations are given before ``clip`` bounds it (no
              z_f where gates are coupled);
            - "c_before", "h_before", the states that a step begins with;
            - "c_new", c after ``cell_clip`` and before zoneout; "h_wide", o * tanh(c) before the
              projection and zoneout, always H numbers;
            - "peephole_i", "peephole_f", "peephole_o", what peepholes add;
            - "w_x", "u_h", the products W @ x_t and U @ h_{t-1} of all gates, G*H numbers in the
              order of the weights, before layer normalisation;
            - "w_x_normal", "u_h_normal" (G*H) and "c_normal" (H), what is normalised, before it is
              scaled and shifted.

            Of a quantised layer there are no products.
        layers, units, steps : int, sequence of int, or slice, optional
            Which are kept, all when omitted: layers with both directions, units (of h all, where it
            is projected), and steps of x's axis of time. All layers run all the same, since y is
            that of the call, but what is not chosen takes no memory.
        to : path, optional
            Folder for the arrays, a file NAME.npy each, in place of memory: they are then read from
            there as needed.

        Returns
        -------
        Trace

        Raises
        ------
        TypeError, ValueError
            As a call; if a name, layer, unit or step is none, or given twice.
        MemoryError, OSError
            If what is kept doesn't fit, or can't be written.

        Notes
        -----
        The bits of i, f, g, o, c and h are those of the call, those of z its own sums, and
        "c_before" and "h_before" are states of it; all else follows from these by NumPy, to the
        last bit or two, and so does what peepholes add to z in float64 or beside ``zoneout_c``.
        i * g and o * tanh(c) are one quotient each in the kernels, rounded once: products of the
        arrays may differ from c and h in the last bits. Of a quantised layer the gates are the
        activations of its own sums of integers.

        The layer runs in pieces of time: beside what is kept there is memory for x, y, and the
        outputs of two layers.

        Examples
        --------
        >>> import numpy as np
        >>> from fastlstm import LSTM
        >>> trace = LSTM(3, 5, num_layers=2, seed=0).trace(np.ones((10, 4, 3)), layers=1)
        >>> trace.f.shape, trace.rows
        ((1, 10, 4, 5), (Row(layer=1, direction=0, is_reverse=False),))
        """
        return _tracing.trace(
            self._spec,
            self._weights,
            x,
            state,
            lengths=lengths,
            offsets=offsets,
            resets=resets,
            names=names,
            layers=layers,
            units=units,
            steps=steps,
            to=to,
        )

    @classmethod
    def from_arrays(
        cls,
        weight_ih: Parts,
        weight_hh: Parts,
        bias_ih: Parts | None = None,
        bias_hh: Parts | None = None,
        *,
        weight_hr: Parts | None = None,
        peepholes: Parts | None = None,
        convention: str = "pytorch",
        order: str | None = None,
        layout: str | None = None,
        forget_bias: float | None = None,
        dtype: npt.DTypeLike | None = None,
        **options: Any,
    ) -> Self:
        """Make a layer out of arrays in the order of gates and layout of another library.

        Each of the first six arguments is one array, or a mapping from the letters of the gates to
        an array each, (H, I) or (I, H) as in `layout`; where there are several layers or two
        directions, a list with one of either for each: layer l, direction d at l*D + d. A list is
        always that; nested lists of numbers go through ``np.array`` first.

        Parameters
        ----------
        weight_ih, weight_hh : array_like or mapping, or list
            W of the inputs and U of the hidden state, with the axes of `layout`: (4H, I) and
            (4H, P), say. [x, h] @ K of one matrix K (I + H, 4H) is that of K[:I] and K[I:].
        bias_ih, bias_hh : array_like or mapping, or list, optional
            Added up. Where there is one, either will do; without both the layer has no biases.
        weight_hr : array_like or list, optional
            Projection, (P, H), or (H, P) where I comes before H in `layout`.
        peepholes : array_like or mapping, or list, optional
            (3H,) of i, f and o, in `order` and the layout of a bias.
        convention : str, default "pytorch"
            Whose `order`, `layout` and `forget_bias` are meant: "equinox", "flax", "haiku",
            "keras", "ncnn", "onnx", "openvino", "pytorch", "rtneural", "tensorflow1", "thinc".
        order : str, optional
            The letters i, f, o and g (or c, or j) in the order of the gates in the arrays. With
            ``coupled_gates=True`` f may be missing, and is not used.
        layout : str, optional
            Axes of a weight in C order: G gates, H units, I what is read. "GHI" is (4H, I), "IGH"
            (I, 4H), "HGI" (H*4, I), the gates of each unit side by side; "GIH" (4, I, H) and the
            rest likewise. G and H may be two axes too. A bias has the same without I.
        forget_bias : float, optional
            Added to the bias of the forget gate, for cells that compute sigmoid(f + forget_bias).
        dtype : float32 or float64, optional
            By default that of the arrays; float16 becomes float32.
        **options
            Of the layer, as for the constructor: ``batch_first``, ``gate_activation``, ``clip``,
            ``coupled_gates``, ... Sizes, ``bias`` and ``proj_size`` come from the arrays.

        Returns
        -------
        LSTM or BiLSTM

        Raises
        ------
        TypeError, ValueError
            If an argument is wrong, or arrays don't fit each other or differ in dtype.

        Examples
        --------
        >>> import numpy as np
        >>> from fastlstm import LSTM
        >>> kernel, recurrent, bias = np.ones((3, 20)), np.ones((5, 20)), np.ones(20)
        >>> LSTM.from_arrays(kernel, recurrent, bias, convention="keras")
        LSTM(3, 5, dtype=float64)
        """
        from fastlstm import _conventions

        given = {
            "weight_ih": weight_ih,
            "weight_hh": weight_hh,
            "bias_ih": bias_ih,
            "bias_hh": bias_hh,
            "weight_hr": weight_hr,
            "peepholes": peepholes,
        }
        read = _conventions.read(
            given,
            cls.num_directions,
            convention=convention,
            order=order,
            layout=layout,
            forget_bias=forget_bias,
            dtype=dtype,
            options=options,
        )
        layer = cls(**read.arguments)
        layer.load_state_dict(read.parameters)
        return layer
