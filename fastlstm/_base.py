"""What a layer holds: its options and its parameters, read-only, and copies with all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt

from fastlstm import _core
from fastlstm._arguments import RealArray, as_real_array
from fastlstm._call import Weights
from fastlstm._masks import is_random
from fastlstm._parameters import join, split
from fastlstm._quantized import Quantized, to_vector
from fastlstm._spec import DEFAULTS, REQUIRED, Spec, as_spec
from fastlstm.variants import Cell, Rates

#: Attributes that do not change, and arguments that are none: `lstm.dropout = 0` would do nothing.
_OF_PARAMETERS = ("forget_bias", "seed", "isa")
_DERIVED = ("num_directions", "output_size", "cell", "rates", "bits")
_FIXED = frozenset((*REQUIRED, *DEFAULTS, *_OF_PARAMETERS, *_DERIVED))


class Layer:
    """A spec and weights that fit it: options, parameters and copies of a layer.

    How it is made and run is in ``_layer.py``.
    """

    __slots__ = ("__weakref__", "_isa_asked", "_spec", "_weights")

    num_directions: ClassVar[int]
    _isa_asked: str | None
    _spec: Spec
    _weights: Weights

    def __setattr__(self, name: str, value: Any) -> None:
        # The weights are packed for these sizes and options; a change would not reach them.
        if name in _FIXED:
            raise AttributeError(f"{name}: fixed when the layer was made")
        try:
            super().__setattr__(name, value)
        except AttributeError as error:
            error.name, error.obj = name, self  # for Python to ask: did you mean ...?
            raise

    def __delattr__(self, name: str) -> None:
        if name in _FIXED:
            raise AttributeError(f"{name}: fixed when the layer was made")
        super().__delattr__(name)

    @property
    def input_size(self) -> int:
        """I: numbers per step of the input."""
        return self._spec.input_size

    @property
    def hidden_size(self) -> int:
        """H: units of each layer and direction."""
        return self._spec.hidden_size

    @property
    def num_layers(self) -> int:
        """L: layers on top of each other."""
        return self._spec.num_layers

    @property
    def bias(self) -> bool:
        """Whether there are biases."""
        return self._spec.bias

    @property
    def batch_first(self) -> bool:
        """Whether x and y are (B, T, ...) instead of (T, B, ...)."""
        return self._spec.batch_first

    @property
    def proj_size(self) -> int:
        """P where there is a projection, else 0."""
        return self._spec.proj_size

    @property
    def output_size(self) -> int:
        """P: numbers of a hidden state, H where there is no projection."""
        return self._spec.output_size

    @property
    def cell(self) -> Cell:
        """What a cell computes."""
        return self._spec.cell

    @property
    def rates(self) -> Rates:
        """What training drops."""
        return self._spec.rates

    @property
    def return_sequences(self) -> bool:
        """Whether y holds all steps."""
        return self._spec.return_sequences

    @property
    def dtype(self) -> np.dtype[Any]:
        """The precision of parameters, states, results and arithmetic."""
        return self._spec.dtype

    @property
    def merge_mode(self) -> str | None:
        """How y is made of the outputs of the two directions."""
        return self._spec.merge_mode

    @property
    def reverse(self) -> bool:
        """Whether every layer runs from the last step to the first."""
        return self._spec.reverse

    @property
    def isa(self) -> str:
        """Name of the instruction set this layer runs on."""
        return self._weights.model.isa

    @property
    def bits(self) -> int | None:
        """Bits of the products, 8, 16 or 24, of a layer by :func:`fastlstm.quantize`; else None."""
        return None if self._quantized is None else self._quantized.bits

    @property
    def _quantized(self) -> Quantized | None:
        given = self._weights.given
        return given if isinstance(given, Quantized) else None

    @property
    def needs_whole_sequences(self) -> bool:
        """Whether a direction begins at the last step, so that no result is known before that."""
        return any(self._weights.model.is_reverse)

    @property
    def drops(self) -> bool:
        """Whether :meth:`record` drops anything, and so needs ``rng``."""
        return is_random(self._spec)

    @property
    def parameters(self) -> RealArray:
        """All parameters in one vector (N,), read-only, in the order of :meth:`state_dict`.

        Of a quantised layer what its digits stand for, in float32, computed each time.
        """
        given = self._weights.given
        if isinstance(given, Quantized):
            vector = to_vector(given, self._spec)
            vector.flags.writeable = False
            return vector
        return given[:]  # a view can't be made writable where its base is not

    def load_parameters(self, vector: npt.ArrayLike) -> None:
        """Replace all parameters by those of one vector, as after a step of an optimiser.

        Parameters
        ----------
        vector : array_like (N,)
            Laid out as :attr:`parameters`; copied, and converted to the layer's dtype.

        Raises
        ------
        TypeError, ValueError
            If it does not hold N real numbers, or the layer is quantised. It is then as it was.
        """
        self._check_takes_parameters("load_parameters")
        self._set_weights(self._as_vector(vector).copy(), self.isa)

    def named_views(self, vector: RealArray) -> dict[str, RealArray]:
        """Return views of a vector by the parameters' names: of a gradient, say.

        Parameters
        ----------
        vector : ndarray (N,)
            Laid out as :attr:`parameters`.

        Returns
        -------
        dict of str to ndarray
            Names and shapes of :meth:`state_dict`; writable where the vector is.

        Raises
        ------
        TypeError, ValueError
            If it is not an array of N numbers.
        """
        if not isinstance(vector, np.ndarray) or vector.dtype.kind not in "biuf":
            what = (
                f"dtype {vector.dtype}" if isinstance(vector, np.ndarray) else type(vector).__name__
            )
            raise TypeError(f"vector: got {what}, expected a NumPy array of real numbers")
        self._check_length(vector)
        return split(vector, self._spec)

    def _as_vector(self, vector: npt.ArrayLike) -> RealArray:
        array = as_real_array("vector", vector, self.dtype)
        self._check_length(array)
        return array

    def _check_length(self, vector: RealArray) -> None:
        expected = (self._weights.model.parameter_count,)
        if vector.shape != expected:
            raise ValueError(
                f"vector: got shape {vector.shape}, expected that of the parameters, {expected}"
            )

    def state_dict(self) -> dict[str, RealArray]:
        """Return the parameters by PyTorch's names, in its order.

        Returns
        -------
        dict of str to ndarray
            Read-only views: weights change only through :meth:`load_state_dict`, which repacks
            them. ``weight_ih_l0`` (4H, I) holds W and ``weight_hh_l0`` (4H, P) holds U, each H
            rows of the gates i, f, g, o, or 3H of i, g, o with ``coupled_gates``; ``bias_ih_l0``
            and ``bias_hh_l0`` (4H) add up to b; ``weight_hr_l0`` (P, H) projects;
            ``weight_ci_l0``, ``weight_cf_l0`` and ``weight_co_l0`` (H) are peepholes;
            ``scale_ih_l0`` and ``scale_hh_l0`` (4H), ``scale_c_l0`` and ``shift_c_l0`` (H) are of
            layer normalisation. Higher layers are ``_l1``, ... with W (4H, D*P); a BiLSTM's reverse
            directions end in ``_reverse``.
        """
        return split(self.parameters, self._spec)

    def load_state_dict(self, arrays: Mapping[str, npt.ArrayLike]) -> None:
        """Replace all parameters.

        Parameters
        ----------
        arrays : mapping of str to array_like
            Every parameter that :meth:`state_dict` names and no other, of the same shape; values
            are converted to the layer's dtype. ``torch.nn.LSTM(...).state_dict()`` will do.

        Raises
        ------
        TypeError
            If it is not a mapping, or the layer is quantised.
        ValueError
            Naming every parameter that is missing, unexpected, misshapen or not of real numbers.
            The layer is then as it was.
        """
        self._check_takes_parameters("load_state_dict")
        if not isinstance(arrays, Mapping):
            raise TypeError(f"arrays: got {type(arrays).__name__}, expected a mapping of names")
        self._set_weights(join("arrays", arrays, self._spec), self.isa)

    def _check_takes_parameters(self, method: str) -> None:
        if self.bits is not None:
            raise TypeError(
                f"{method}: the layer is one of {self.bits} bits, which takes no parameters; "
                "load them into a float32 layer and quantise that"
            )

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that make a layer like this one, without its parameters.

        Numbers, strings, flags and None, fit for JSON: ``type(lstm)(**lstm.options)``. Not among
        them are ``forget_bias`` and ``seed``, which chose the first parameters, and ``isa``.
        """
        return self._spec.options

    def __repr__(self) -> str:
        sizes = [str(self.input_size), str(self.hidden_size)]
        chosen = [f"{k}={v!r}" for k, v in self._spec.chosen.items() if k != "dtype"]
        bits = [] if self.bits is None else [f"bits={self.bits}"]
        rest = [*sizes, *chosen, f"dtype={self.dtype}", *bits]
        return f"{type(self).__name__}({', '.join(rest)})"

    def __getstate__(self) -> dict[str, Any]:
        # The packed weights stay behind: another machine may have another instruction set.
        attributes, slots = cast(
            tuple[dict[str, Any] | None, dict[str, Any]], object.__getstate__(self)
        )
        state = {**(attributes or {}), **slots}  # those of a subclass, too
        state["_options"] = state.pop("_spec").options
        state["_weights"] = state["_weights"].given
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        attributes = dict(state)
        self._spec = as_spec(self.num_directions, **attributes.pop("_options"))
        self._isa_asked = asked = attributes.pop("_isa_asked")
        given = attributes.pop("_weights")
        for name, value in attributes.items():  # of a subclass
            setattr(self, name, value)
        self._set_weights(
            given if isinstance(given, Quantized) else given.copy(),
            asked if asked in (*_core.available_isas(), *_core.quantized_isas()) else None,
        )

    @classmethod
    def _from_quantized(cls, spec: Spec, quantized: Quantized, isa: str | None = None) -> Self:
        """Return a layer of parameters in digits, whose arrays it takes over."""
        layer = cls.__new__(cls)
        layer._spec, layer._isa_asked = spec, isa
        layer._set_weights(quantized, isa)
        return layer

    def _as_quantized(self, quantized: Quantized) -> Self:
        """Return a copy with other parameters, in digits, whose arrays it takes over."""
        state = Layer.__getstate__(self)
        layer = type(self).__new__(type(self))
        Layer.__setstate__(layer, {**state, "_weights": quantized})
        return layer

    def _set_weights(self, given: RealArray | Quantized, isa: str | None) -> None:
        """Pack parameters and take them over. The arrays must be the layer's own."""
        if isinstance(given, Quantized):
            model = _core.Model(self._spec, None, isa, given)
            for array in given.arrays():
                array.flags.writeable = False
        else:
            model = _core.Model(self._spec, given, isa)
            given.flags.writeable = False
        self._weights = Weights(given, model)
