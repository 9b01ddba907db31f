"""Optimisers for flat parameter vectors: PyTorch's semantics and defaults, in NumPy.

>>> import numpy as np
>>> from fastlstm import optim
>>> parameters = np.array([1.0, -2.0])
>>> optimizer = optim.SGD(0.25, momentum=0.9)
>>> optimizer.step(parameters, gradient=2 * parameters)
>>> parameters
array([ 0.5, -1. ])

All arithmetic is in the dtype of the vectors, elementwise, one operation after the other as written
here, or for `Adam` in ``src_c/vectors.h``: the bits depend on neither alignment,
threads nor instruction set. PyTorch's kernels fuse some products and sums, so its results differ by
roundings.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, ClassVar

import numpy as np

from fastlstm import _core
from fastlstm._arguments import DTYPES, RealArray, as_finite, as_flag, shown

__all__ = ["SGD", "Adam", "AdamW", "clip_grad_norm"]

_BLOCK = 32768  # elements worked on at a time, so that scratch is small and stays in the cache


#: What an optimiser holds beside its options.
_STATE = ("_steps", "_shape", "_scratch", "_moments")


class _Optimizer:
    """Checks, memory and state, the same for every method; its dataclass fields are the options."""

    __slots__ = ("__weakref__", *_STATE)

    _fixed: ClassVar[dict[str, bool]] = {}  # what tells apart states that look alike
    lr: float

    def __post_init__(self) -> None:
        self._steps = 0
        self._shape: tuple[int, ...] | None = None  # of all vectors, known from the first step on
        self._scratch: RealArray = np.empty((2, 0))
        self._moments: dict[str, RealArray] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _CHECKS and hasattr(type(self), name):
            if hasattr(self, name) and name != "lr":
                raise AttributeError(f"{name}: cannot be changed, expected a new optimiser")
            value = _CHECKS[name](name, value)
        super().__setattr__(name, value)

    def step(self, parameters: RealArray, gradient: RealArray) -> None:
        """Update the parameters in place.

        Parameters
        ----------
        parameters : ndarray (N,)
            float32 or float64, C-contiguous and writable; N and dtype the same at every step.
        gradient : ndarray (N,)
            Of the loss, by the parameters; their dtype, C-contiguous. It is not changed.

        Raises
        ------
        TypeError, ValueError
            If the vectors are not as described, or share memory. Nothing is changed then.

        Notes
        -----
        Only the first step allocates memory. Infinities and NaN in the gradient are no error: they
        go where the arithmetic takes them, without a warning, as in PyTorch (`clip_grad_norm` can
        check for them). An optimiser belongs to one thread at a time.
        """
        p = _as_vector("parameters", parameters, writable=True)
        g = _as_vector("gradient", gradient)
        _check_like("gradient", g, p.shape, p.dtype, "the parameters")
        if np.may_share_memory(p, g):  # exact, as neither has gaps
            raise ValueError("gradient: shares memory with parameters, expected memory of its own")
        if self._shape is None:
            self._allocate(p)
        else:
            _check_like("parameters", p, self._shape, self._scratch.dtype, "in the steps before")
        with np.errstate(all="ignore"):
            self._update(p, g)
        self._steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return what a run needs to continue bit for bit: options, step count and moments.

        Returns
        -------
        dict
            Numbers and arrays by name, PyTorch's where it has them. The moments (N,) are there
            after the first step, as copies. ``numpy.savez(path, **state)`` keeps all of it.
        """
        options = {name: getattr(self, name) for name in self._options()}
        if "betas" in options:
            options["betas"] = np.array(options["betas"])
        moments = {name: moment.copy() for name, moment in self._moments.items()}
        return {**options, **self._fixed, "step": self._steps, **moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of an optimiser of this class, with its options and learning rate.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned, or ``numpy.load`` read back. Arrays are copied.

        Raises
        ------
        TypeError, ValueError
            If anything is missing, unexpected or impossible. This optimiser is then as it was.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state: got {type(state).__name__}, expected a mapping")
        given = {name: _as_plain(state[name]) for name in state}
        required = [*self._options(), *self._fixed, "step"]
        if missing := [name for name in required if name not in given]:
            raise ValueError(f"state: missing {', '.join(missing)}")
        for name, value in self._fixed.items():
            if given[name] is not value:
                raise ValueError(f"state: {name} is {shown(given[name])}, expected {value}")
        try:
            loaded = type(self)(**{name: given[name] for name in self._options()})
        except (TypeError, ValueError) as error:
            raise type(error)(f"state: {error}") from None
        loaded._steps = given["step"]
        if type(loaded._steps) is not int or not 0 <= loaded._steps <= sys.maxsize:
            raise ValueError(f"state: step is {shown(loaded._steps)}, expected an integer from 0")
        names = loaded._moment_names() if loaded._steps else []
        if (got := given.keys() - required) != set(names):
            raise ValueError(f"state: got moments {sorted(map(str, got))}, expected {names}")
        vectors = {name: _as_vector(f"state: {name}", given[name]) for name in names}
        for name, vector in vectors.items():
            first = vectors[names[0]]
            _check_like(f"state: {name}", vector, first.shape, first.dtype, names[0])
        if vectors:
            loaded._allocate(vectors[names[0]])
            loaded._moments = {name: vector.copy() for name, vector in vectors.items()}
        for name in (*self._options(), *_STATE):
            object.__setattr__(self, name, getattr(loaded, name))

    def _options(self) -> list[str]:
        return [field.name for field in fields(self)]  # type: ignore[arg-type]  # of a subclass

    def _moment_names(self) -> list[str]:
        """Return PyTorch's names of the vectors kept from one step to the next."""
        raise NotImplementedError

    def _update(self, parameters: RealArray, gradient: RealArray) -> None:
        """Do one step with vectors that have been checked."""
        raise NotImplementedError

    def _allocate(self, like: RealArray) -> None:
        moments = {name: np.zeros_like(like) for name in self._moment_names()}
        self._scratch = np.empty((2, min(like.size, _BLOCK)), like.dtype)
        self._shape, self._moments = like.shape, moments

    def _blocks(self, *vectors: RealArray) -> Iterator[list[RealArray]]:
        """Yield for each block the vectors' parts, those of the moments, and two of scratch."""
        vectors += (*self._moments.values(),)
        for start in range(0, vectors[0].size, _BLOCK):
            parts = [vector[start : start + _BLOCK] for vector in vectors]
            yield [*parts, *self._scratch[:, : parts[0].size]]


@dataclass(eq=False, slots=True)
class SGD(_Optimizer):
    """Stochastic gradient descent, with momentum if wanted; as ``torch.optim.SGD``.

    Of the gradient g (plus ``weight_decay * p``), ``b = momentum * b + (1 - dampening) * g``, but
    ``b = g`` at first; then ``p -= lr * b``, with ``nesterov`` ``p -= lr * (g + momentum * b)``.

    Parameters
    ----------
    lr : float
        Learning rate, 0 or more. The one option that may be set later, as a schedule does.
    momentum : float
        Share of the last step's direction that is kept, 0 or more.
    dampening : float
        Share of the gradient that the momentum leaves out, from the second step on.
    weight_decay : float
        Factor of the L2 penalty's gradient, 0 or more.
    nesterov : bool
        Look ahead along the momentum, which must be above 0, with no dampening.

    Raises
    ------
    TypeError, ValueError
        If an option is not as described.

    References
    ----------
    B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    I. Sutskever, J. Martens, G. Dahl and G. Hinton, "On the importance of initialization and
    momentum in deep learning", 2013; PyTorch's form of it, where the rate is not in the momentum.
    """

    lr: float
    _: KW_ONLY
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        _Optimizer.__post_init__(self)  # super() knows the class that slots are not of
        if self.nesterov and not (self.momentum > 0 and self.dampening == 0):
            got = f"momentum {self.momentum} and dampening {self.dampening}"
            raise ValueError(f"nesterov: got {got}, expected momentum above 0 and dampening 0")

    def _moment_names(self) -> list[str]:
        return ["momentum_buffer"] if self.momentum else []

    def _update(self, parameters: RealArray, gradient: RealArray) -> None:
        for p, g, *moments, s, d in self._blocks(parameters, gradient):
            if self.weight_decay:
                g = np.add(g, np.multiply(p, self.weight_decay, out=d), out=d)
            for b in moments:
                if self._steps == 0:
                    b[:] = g
                else:
                    b *= self.momentum
                    b += np.multiply(g, 1 - self.dampening, out=s)
                g = np.add(g, np.multiply(b, self.momentum, out=s), out=s) if self.nesterov else b
            p += np.multiply(g, -self.lr, out=s)


@dataclass(eq=False, slots=True)
class Adam(_Optimizer):
    """Adam: steps scaled by running means of the gradient and its square; as ``torch.optim.Adam``.

    Of the gradient g (plus ``weight_decay * p``) at step t, ``m = beta1 * m + (1 - beta1) * g``,
    ``v = beta2 * v + (1 - beta2) * g**2``, and
    ``p -= lr / (1 - beta1**t) * m / (sqrt(v) / sqrt(1 - beta2**t) + eps)``.

    Parameters
    ----------
    lr : float
        Learning rate, 0 or more. The one option that may be set later, as a schedule does.
    betas : pair of float
        How much the means of the gradient and of its square keep, from 0 to below 1.
    eps : float
        Added to the denominator, 0 or more.
    weight_decay : float
        Factor of the L2 penalty's gradient, 0 or more.
    amsgrad : bool
        Divide by the largest v so far in place of v.

    Raises
    ------
    TypeError, ValueError
        If an option is not as described.

    References
    ----------
    D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", 2015.
    S. J. Reddi, S. Kale and S. Kumar, "On the convergence of Adam and beyond", 2018 (amsgrad).
    """

    _fixed = {"decoupled_weight_decay": False}  # noqa: RUF012
    lr: float = 1e-3
    _: KW_ONLY
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False

    def _moment_names(self) -> list[str]:
        return ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * self.amsgrad

    def _update(self, parameters: RealArray, gradient: RealArray) -> None:
        beta1, beta2 = self.betas
        rate = self.lr / (1 - beta1 ** (self._steps + 1))
        correction = (1 - beta2 ** (self._steps + 1)) ** 0.5
        decoupled = self._fixed["decoupled_weight_decay"]
        keep = 1 - self.lr * self.weight_decay if decoupled else 1.0
        decay = 0.0 if decoupled else self.weight_decay
        m, v, *largest = self._moments.values()
        v_max = largest[0] if largest else None
        _core.adam_step(
            parameters, gradient, m, v, v_max, beta1, beta2, self.eps, rate, correction, keep, decay
        )


@dataclass(eq=False, slots=True)
class AdamW(Adam):
    """Adam with decoupled weight decay, ``p *= 1 - lr * weight_decay``; as ``torch.optim.AdamW``.

    The decay does not enter the running means, as it does in `Adam`. Neither class loads the
    other's states.

    Parameters
    ----------
    lr, betas, eps, amsgrad
        As those of `Adam`, with its errors.
    weight_decay : float
        Share of the parameters that a step takes off, in units of lr; 0 or more.

    References
    ----------
    I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", 2019.
    """

    _fixed = {"decoupled_weight_decay": True}  # noqa: RUF012
    _: KW_ONLY
    weight_decay: float = 1e-2


def clip_grad_norm(
    gradient: RealArray, max_norm: float, *, error_if_nonfinite: bool = False
) -> float:
    """Scale a gradient in place so that its norm is at most ``max_norm``; return the norm before.

    As ``torch.nn.utils.clip_grad_norm_``: by ``max_norm / (norm + 1e-6)`` where that is below 1.

    Parameters
    ----------
    gradient : ndarray (N,)
        float32 or float64, C-contiguous and writable.
    max_norm : float
        0 or more; infinity leaves a finite gradient as it is.
    error_if_nonfinite : bool
        Whether an infinite norm or NaN is an error. Otherwise NaN makes all of the gradient NaN;
        infinity makes finite elements 0 and infinite ones NaN, as in PyTorch.

    Returns
    -------
    norm : float
        Euclidean norm, summed in float64 in an order that depends on N alone, without overflow.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    RuntimeError
        If the norm is not finite, with ``error_if_nonfinite``. The gradient is then as it was.

    References
    ----------
    R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training recurrent neural networks",
    2013.
    """
    g = _as_vector("gradient", gradient, writable=True)
    if not (isinstance(max_norm, float | np.floating) and max_norm == math.inf):
        max_norm = _non_negative("max_norm", max_norm)
    check = as_flag("error_if_nonfinite", error_if_nonfinite)
    with np.errstate(all="ignore"):
        norm = _core.norm(g)
        if check and not math.isfinite(norm):
            raise RuntimeError(f"gradient: norm is {norm}, expected a finite one")
        factor = float(max_norm) / (norm + 1e-6)
        if not factor >= 1:
            g *= factor
    return norm


def _as_vector(name: str, value: Any, *, writable: bool = False) -> RealArray:
    """Return a NumPy array (N,) of float32 or float64 without gaps; raise if it is not one."""
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a NumPy array")
    if value.dtype not in DTYPES:
        raise TypeError(f"{name}: got dtype {value.dtype}, expected float32 or float64")
    if value.ndim != 1:
        raise ValueError(f"{name}: got shape {value.shape}, expected (N,)")
    if not (value.flags.c_contiguous and value.flags.aligned):
        raise ValueError(f"{name}: got a strided or unaligned array, expected a C-contiguous one")
    if writable and not value.flags.writeable:
        raise ValueError(f"{name}: got a read-only array, expected a writable one")
    # A native order that is spelled out, "<f4" by newbyteorder, is equal and no format of the core.
    return np.asarray(value).view(DTYPES[DTYPES.index(value.dtype)])


def _check_like(
    name: str, vector: RealArray, shape: tuple[int, ...], dtype: np.dtype[Any], what: str
) -> None:
    if vector.dtype != dtype:
        raise TypeError(f"{name}: got dtype {vector.dtype}, expected {dtype} as {what}")
    if vector.shape != shape:
        raise ValueError(f"{name}: got shape {vector.shape}, expected {shape} as {what}")


def _finite(name: str, value: Any) -> float:
    return as_finite(name, value, np.dtype(np.float64))


def _non_negative(name: str, value: Any) -> float:
    number = _finite(name, value)
    if number < 0:
        raise ValueError(f"{name}: got {shown(value)}, expected 0 or more")
    return number


def _betas(name: str, value: Any) -> tuple[float, float]:
    expected = "expected two numbers from 0 to below 1"
    is_list = isinstance(value, tuple | list) or (isinstance(value, np.ndarray) and value.ndim == 1)
    if not is_list:
        raise TypeError(f"{name}: got {shown(value)}, {expected}")
    if len(value) != 2:
        raise ValueError(f"{name}: got {shown(value)}, {expected}")
    beta1, beta2 = (_finite(f"{name}[{k}]", value[k]) for k in range(2))
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"{name}: got {shown(value)}, {expected}")
    return beta1, beta2


def _as_plain(value: Any) -> Any:
    """Return a NumPy number, or an array of no axes as files hold them, as Python's number."""
    is_number = isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not value.ndim)
    return value.item() if is_number else value


#: What each option must be.
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "lr": _non_negative,
    "momentum": _non_negative,
    "dampening": _finite,
    "weight_decay": _non_negative,
    "nesterov": as_flag,
    "betas": _betas,
    "eps": _non_negative,
    "amsgrad": as_flag,
}
